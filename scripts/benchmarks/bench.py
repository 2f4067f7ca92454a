"""Measures git-theta beside git-lfs and cp: time, memory and stored bytes of each Git command.

Makes a dense fine-tune, a merged LoRA and a change of 1 % of the weights of a checkpoint in a
scratch folder, runs the same steps with each tool in turn, several times, compares every file
that comes back, prints tables and removes the folder. Checkpoints are MiniLM (90 MB, fp32) and
synthetic ones in bf16, shaped like a Llama model. MiniLM and 1 GB take 8 minutes on two free cores
and 20 GB of disk. All figures come from one machine: trust the ratios.

`scripts/bench merge` measures merging, `scripts/bench network` a network: see their --help.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.checkpoint import (
    ADAMW_NOISE,
    BF16_NOISE,
    write_base,
    write_fine_tune,
    write_lora,
    write_sparse,
)
from benchmarks.least import touched
from benchmarks.load import Load, watched
from benchmarks.machine import machine, startup
from benchmarks.pages import write_block
from benchmarks.quickstart import real_checkpoint
from benchmarks.sandbox import LFS, THETA, Project, Sandbox
from benchmarks.stages import Stage, chunk_bytes, stages
from benchmarks.steps import Files, Result, measure, steps
from benchmarks.table import ratio, seconds, size, stored_ratio, table
from git_theta.core.messages import plural

_OTHERS = ("stages", "startup")
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_MINILM = 91 << 20
_DISK_FACTOR = 20
"""Four source files, and for each tool a work tree, four stored versions, a remote and a clone."""

_PAGE = Path(__file__).parents[2] / "docs/performance.md"


@dataclass(frozen=True)
class Model:
    """A checkpoint to measure with, so many times: MiniLM, or synthetic of so many bytes."""

    name: str
    runs: int
    length: int | None = None

    @property
    def noise(self) -> float:
        """The standard deviation of a fine-tune's change."""
        return ADAMW_NOISE if self.length is None else BF16_NOISE

    def write(self, path: Path) -> None:
        """Write the checkpoint to ``path``."""
        if self.length is None:
            shutil.copyfile(real_checkpoint(), path)
        else:
            write_base(path, self.length)

    def title(self) -> str:
        """What the checkpoint is."""
        return "MiniLM, fp32" if self.length is None else "synthetic, bf16"


MODELS = (
    Model("minilm", 5),
    Model("1.0gb", 3, 960 << 20),
    Model("1.9gb", 3, 1800 << 20),
)


def main(arguments: list[str]) -> None:
    """Run the benchmark as the command line says."""
    options = _parse(arguments)
    wanted = [name for name in options.only if name not in _OTHERS]
    models = options.models if wanted else []
    largest = max((model.length or _MINILM for model in models), default=_MINILM)
    with scratch_folder(options.dir, _DISK_FACTOR * largest) as root:
        figures: dict[str, Any] = {"machine": machine(Sandbox(root)), "models": []}
        texts = [_machine_text(figures["machine"])]
        for model in models:
            with watched() as load:
                results, length = run(root, wanted, model)
            shown = {"name": model.name, "bytes": length, "steps": list(map(asdict, results))}
            figures["models"].append(shown)
            texts += [_conditions(model, length, load), report(results)]
        if "stages" in options.only:
            measured = stages(root, BF16_NOISE)
            figures["stages"] = [asdict(stage) for stage in measured]
            texts.append(_stages_text(measured))
        if "startup" in options.only:
            figures["startup"] = startup(root)
            times = ", ".join(f"{name} {value:.3f} s" for name, value in figures["startup"].items())
            texts.append(f"Start of the filter process: {times}.")
    print("\n" + "\n\n".join(texts))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if options.write:
        write_block(_PAGE, "bench", "\n\n".join(texts))


def run(root: Path, wanted: list[str], model: Model) -> tuple[list[Result], int]:
    """Run the steps up to the last one wanted; return the results and the checkpoint's size."""
    plan = steps()
    last = max(index for index, step in enumerate(plan) if step.name in wanted)
    _note(f"{model.name}: making the checkpoint and three changes of it")
    names = ("base", "dense", "lora", "sparse")
    files = Files(*(root / f"{name}.safetensors" for name in names))
    model.write(files.base)
    write_fine_tune(files.base, files.fine_tune, model.noise)
    write_lora(files.base, files.lora)
    write_sparse(files.base, files.sparse, 0.01)
    results = [Result(step.name) for step in plan[: last + 1]]
    for number in range(model.runs):
        folder = root / f"run-{number}"
        projects = [Project(folder / tool.name, tool) for tool in (LFS, THETA)]
        for step, result in zip(plan, results, strict=False):
            _note(f"{model.name}, run {number + 1}: {step.name}: {' '.join(step.command)}")
            # In turn: who comes first finds other pages in memory.
            measure(step, projects[:: 1 - 2 * (number % 2)], files, root, result)
            if step.name == "touch":
                result.read.append(touched(folder / "least", files.base))
        shutil.rmtree(folder)
    return [result for result in results if result.step in wanted], files.base.stat().st_size


def report(results: list[Result]) -> str:
    """The table of times, peak memory and stored bytes: medians, and the spread of ours."""
    ours, theirs = THETA.name, LFS.name
    head = [
        "step", "at least", theirs, ours, "fastest to slowest", "time", "processor time",
        f"memory {theirs}", f"memory {ours}", "stored",
    ]  # fmt: skip
    rows = []
    for result in results:
        us, them = result.usage[ours], result.usage[theirs]
        times = [usage.seconds for usage in us]
        middle, other = median(times), median(usage.seconds for usage in them)
        spent, others = (median(usage.processor for usage in each) for each in (us, them))
        rows.append(
            [
                result.step,
                result.least,
                seconds(other),
                seconds(middle),
                f"{min(times):.2f} to {max(times):.2f}",
                ratio(middle, other),
                f"{spent:.2f} s, {ratio(spent, others)}",
                size(max(usage.tree for usage in them)),
                size(max(usage.tree for usage in us)),
                stored_ratio(result.stored[ours], result.stored[theirs]),
            ]
        )
    return table(head, rows)


def _machine_text(of: dict[str, Any]) -> str:
    lfs = of["git-lfs"].split()[0]
    return (
        f"{of['processor']}, {of['cores']} cores; {of['git']}, {lfs}. Medians, the tools in turn; "
        "*time* and *processor time* are git-theta's, and as multiples of git-lfs's. *At least* is "
        "`cp` and `sync` of the same bytes, and for a touched file `git add` with a filter that "
        "reads what Git sends and forgets it."
    )


def _conditions(model: Model, length: int, load: Load) -> str:
    runs = plural(model.runs, "run")
    return (
        f"### {size(length)}, {model.title()}\n\n{runs}; "
        f"others kept {load.others:.1f} cores busy meanwhile."
    )


def _stages_text(measured: list[Stage]) -> str:
    head = ["stage", "ms", "ms of processor", "MB/s of processor"]
    rows = [
        [each.name, f"{each.wall:.1f}", f"{each.processor:.1f}", _speed(each)] for each in measured
    ]
    return f"One chunk, {size(chunk_bytes())}, on one core:\n\n{table(head, rows)}"


def _speed(stage: Stage) -> str:
    return f"{chunk_bytes() / 1e3 / stage.processor:,.0f}" if stage.processor > 0.5 else "-"


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    names = [step.name for step in steps()] + list(_OTHERS)
    parser.add_argument(
        "--models",
        type=_models,
        default="minilm,1.0gb",
        help=f"of {','.join(model.name for model in MODELS)} (default minilm,1.0gb)",
    )
    parser.add_argument(
        "--size", type=length, help="measure a synthetic checkpoint of this size instead"
    )
    parser.add_argument("--runs", type=int, help="times that all is run (default 5 and 3)")
    parser.add_argument(
        "--write", action="store_true", help="write the tables to docs/performance.md"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--dir", type=Path, help="where to make the scratch folder")
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=names, help=f"of {','.join(names)}"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(names):
        parser.error(
            f"no step is called {', '.join(sorted(unknown))}: choose of {', '.join(names)}"
        )
    if options.size:
        options.models = [Model(f"{options.size:,} bytes", 3, options.size)]
    if options.runs:
        options.models = [replace(model, runs=options.runs) for model in options.models]
    return options


def _models(text: str) -> list[Model]:
    by_name = {model.name: model for model in MODELS}
    if unknown := set(text.split(",")) - set(by_name):
        raise argparse.ArgumentTypeError(f"no model is called {', '.join(sorted(unknown))}")
    return [by_name[name] for name in text.split(",")]


def length(text: str) -> int:
    """Bytes, from a number with a unit such as 256m or 2g."""
    digits, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    if not digits.isdigit() or unit not in {"", *_UNITS}:
        raise argparse.ArgumentTypeError("not a size such as 256m or 2g")
    return int(digits) * _UNITS.get(unit, 1)


@contextmanager
def scratch_folder(parent: Path | None, needed: int) -> Iterator[Path]:
    """A folder that is removed at the end; the script ends if the disk has too little room."""
    with tempfile.TemporaryDirectory(prefix="git-theta-bench-", dir=parent) as name:
        free = shutil.disk_usage(name).free
        if free < needed:
            sys.exit(f"{size(needed)} of disk space are needed and {size(free)} are free in {name}")
        yield Path(name)


def _note(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
