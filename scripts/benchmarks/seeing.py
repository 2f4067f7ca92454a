"""Measures what it costs to see what changed, in git-theta's and Git's commands and from Python.

Two versions of a bf16 model, every tensor changed, and branches with LoRA adapters. Fails when a
target is missed. Processor time counts where other work keeps the cores busy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoint import BF16_NOISE, write_base, write_fine_tune
from benchmarks.fine_tunes import ROOT
from benchmarks.measure import Usage, measured
from benchmarks.pages import write_block
from benchmarks.sandbox import THETA, Project
from benchmarks.table import table

_PAGE = ROOT / "docs" / "performance.md"
_PROGRAM = "git-theta"

DECODE = """
from git_theta import manifest
from git_theta.checkpoint.reader import Reader
from git_theta.core.parallel import in_order
from git_theta.workspace import open_workspace

with open_workspace() as workspace:
    reader = Reader(workspace.storage)
    for rev in ("HEAD~1", "HEAD"):
        described = manifest.parse(workspace.repo.read_blob(f"{rev}:model.safetensors"))
        for _ in in_order(lambda chunk: len(reader.read([chunk])), described.chunks(), 2):
            pass
"""
ONE_TENSOR = """
import math, sys
import git_theta

with git_theta.open("model.safetensors", rev="HEAD") as model:
    names = [name for name in model.keys() if "layers.1.self_attn.q_proj" in name]
    name = (names or ["lm_head.weight"])[0]
    assert model.get_tensor(name).nbytes == 2 * math.prod(model.get_slice(name).get_shape())
assert "torch" not in sys.modules
"""
BRANCHES = """
import sys
import numpy as np
import git_theta

shapes = {"lora_A": (8, 256), "lora_B": (256, 8)}
for number in range(int(sys.argv[1])):
    random = np.random.default_rng(number)
    state = {
        f"base_model.model.layers.{layer}.{module}.{role}.weight":
            random.standard_normal(shape, np.float32)
        for layer in range(6) for module in ("q_proj", "v_proj") for role, shape in shapes.items()
    }
    git_theta.commit_state_dict(
        state, "adapter/adapter_model.safetensors", f"Run {number}", branch=f"runs/{number}"
    )
"""


@dataclass(frozen=True)
class Row:
    """A measured command; ``most`` is its target, in seconds of processor time, if it has one."""

    what: str
    usage: Usage
    most: float | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """What the table shows."""
        return (
            self.what,
            f"{self.usage.processor:.2f}",
            f"{self.usage.seconds:.2f}",
            f"{self.usage.tree / 1e6:,.0f}",
            "-" if self.most is None else f"{self.most:.2f}",
        )


class Bench:
    """A repository with two versions of a model."""

    def __init__(self, root: Path, size: int) -> None:
        self.project = Project(root / "project", THETA)
        base, tip = root / "base.safetensors", root / "tip.safetensors"
        write_base(base, size)
        write_fine_tune(base, tip, BF16_NOISE)
        for source, message in ((base, "Base"), (tip, "Fine-tune")):
            source.replace(self.project.file)
            self.project.git("add", "-A")
            self.project.git("commit", "-q", "-m", message)

    def run(self, *command: str) -> Usage:
        """Run a command in the work tree; what it took."""
        return measured(command, self.project.work, self.project.sandbox.environment, _PROGRAM)

    def python(self, code: str, *args: str) -> Usage:
        """Run Python in a process of its own."""
        return self.run(sys.executable, "-c", code, *args)


def rows(bench: Bench, branches: int) -> Iterator[Row]:
    """Measure one after the other."""
    decoding = bench.python(DECODE)
    yield Row("decode both versions to arrays", decoding)
    limit = 1.5 * decoding.processor
    yield Row(
        "`git theta diff HEAD~1 HEAD`", bench.run("git", "theta", "diff", "HEAD~1", "HEAD"), limit
    )
    yield Row("`git diff --stat HEAD~1 HEAD`", bench.run("git", "diff", "--stat", "HEAD~1", "HEAD"))
    yield Row("`git log -p`", bench.run("git", "log", "-p"))
    yield Row("`git theta log`", bench.run("git", "theta", "log"))
    yield Row("one tensor from Python, a fresh process", bench.python(ONE_TENSOR), 0.5)
    page = str(bench.project.work.parent / "report.html")
    report = ("git", "theta", "report", "HEAD~1", "HEAD", "--html", page)
    yield Row("`git theta report --html`", bench.run(*report))
    config = bench.project.work / "adapter" / "adapter_config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 16}))
    bench.project.git("add", "adapter")
    bench.project.git("commit", "-q", "-m", "Configuration")
    bench.python(BRANCHES, str(branches))
    similar = ("git", "theta", "similar", "runs/0", "runs/*")
    yield Row(f"`git theta similar`, {branches:,} adapters, first", bench.run(*similar))
    yield Row("`git theta similar`, again", bench.run(*similar), 10)


def main() -> int:
    """Handle the command line of ``scripts/bench see``; return its exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench see", description=__doc__)
    parser.add_argument("--size", type=float, default=1.9, help="GB of the model (1.9)")
    parser.add_argument("--branches", type=int, default=1000, help="branches with adapters (1000)")
    parser.add_argument("--write", action="store_true", help=f"renew {_PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="theta-see-") as folder:
        bench = Bench(Path(folder), int(options.size * 1e9))
        found = []
        for row in rows(bench, options.branches):
            print(*row.cells, sep="  ", flush=True)
            found.append(row)
    head = ("", "processor s", "wall s", "memory MB", "at most, processor s")
    text = table(head, [row.cells for row in found])
    if options.write:
        write_block(_PAGE, "see", text)
    missed = [row.what for row in found if row.most and row.usage.processor > row.most]
    print(text, *(f"missed: {what}" for what in missed), sep="\n")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
