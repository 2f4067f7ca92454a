"""Measures push, clone and pull over a network beside git-lfs: requests, bytes, time.

git and LFS servers run on this machine, over HTTP, behind a proxy that delays and slows what goes
through it. git-lfs is measured twice: with the checkpoint, and with files that are the objects of
git-theta, byte for byte, so that the same is sent. Every file that comes back is compared.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.checkpoint import ADAMW_NOISE, write_fine_tune
from benchmarks.load import watched
from benchmarks.measure import measured
from benchmarks.pages import write_block
from benchmarks.quickstart import real_checkpoint
from benchmarks.sandbox import LFS, THETA, Project, Tool
from benchmarks.shaping import Link, ShapedProxy
from benchmarks.table import ratio, seconds, size, table
from git_theta.core.messages import plural

SAME = Tool("git-lfs, same objects", (("git", "lfs", "install"), ("git", "lfs", "track", "*.bin")))
TOOLS = (LFS, SAME, THETA)

REQUESTS_LIMIT = 1.1
"""Times the requests that git-lfs makes for the same objects."""

_PAGE = Path(__file__).parents[2] / "docs/performance.md"
_TENSORS = 2000


@dataclass(frozen=True)
class Transfer:
    """What a command took: requests to the LFS server and in all, bytes each way, seconds."""

    lfs: int
    requests: int
    up: int
    down: int
    seconds: float
    processor: float


@dataclass
class Row:
    """A step with one tool, in each run."""

    step: str
    tool: str
    transfers: list[Transfer] = field(default_factory=list)

    def middle(self, value: Callable[[Transfer], float]) -> float:
        """Return the median of a figure."""
        return median(map(value, self.transfers))


class Host:
    """The servers, and the proxy in front of them."""

    def __init__(self, server: Any, proxy: ShapedProxy) -> None:
        self._server = server
        self._proxy = proxy

    def repository(self, name: str) -> str:
        """Return the URL, through the proxy, of a new repository."""
        self._server.repository(name)
        return f"http://127.0.0.1:{self._proxy.port}/{name}"

    def run(self, project: Project, *command: str) -> Transfer:
        """Run a git command in the work tree and return what it took."""
        asked, up, down = len(self._server.requests), self._proxy.up, self._proxy.down
        os.sync()
        words, environment = ("git", *command), project.sandbox.environment
        usage = measured(words, project.work, environment, program=project.tool.name)
        paths = [path for _, path in self._server.requests[asked:]]
        return Transfer(
            sum("/info/lfs/" in path for path in paths),
            len(paths),
            self._proxy.up - up,
            self._proxy.down - down,
            usage.seconds,
            usage.processor,
        )


@contextmanager
def host(root: Path, link: Link) -> Iterator[Host]:
    """Serve repositories below ``root`` through ``link``."""
    server = importlib.import_module("tests.support.servers").Server(root)
    with server, ShapedProxy(int(server.url.rpartition(":")[2]), link) as proxy:
        yield Host(server, proxy)


def write_small(path: Path) -> None:
    """Write 2,000 tensors of 16 KB each to ``path``."""
    generator = np.random.default_rng(1)
    names = (f"layers.{number}.weight" for number in range(_TENSORS))
    tensors = {name: generator.normal(0, 0.02, (64, 64)).astype(np.float32) for name in names}
    save_file(tensors, path)


def run_case(root: Path, host: Host, case: str, files: Sequence[Path], rows: list[Row]) -> None:
    """Push and clone the first file, push and pull the others, with each tool in turn."""
    projects = {}
    for tool in (THETA, LFS, SAME):
        projects[tool.name] = Project(root / _folder(tool), tool)
    for number, file in enumerate(files):
        _commit(projects, file)
        for tool in TOOLS:
            project = projects[tool.name]
            if not number:
                url = host.repository(f"{root.name}/{_folder(tool)}.git")
                project.git("remote", "set-url", "origin", url)
                project.git("push", "-q", "origin", "main~1:refs/heads/main")
            push = host.run(project, "push", "-q", "origin", "main")
            get = ("-C", str(project.clone), "pull", "-q")
            if not number:
                get = (
                    "clone",
                    "-q",
                    project.git("remote", "get-url", "origin").strip(),
                    str(project.clone),
                )
            names = ("push", "pull" if number else "clone")
            label = file.stem if number else case
            for name, transfer in zip(names, (push, host.run(project, *get)), strict=True):
                _row(rows, f"{label}: {name}", tool.name).transfers.append(transfer)
            for path in project.git("ls-files", "--", "*.bin", Project.checkpoint).splitlines():
                _check(project.clone / path, project.work / path)
    shutil.rmtree(root)


def _folder(tool: Tool) -> str:
    return tool.name.replace(",", "").replace(" ", "-")


def _check(copy: Path, original: Path) -> None:
    if not filecmp.cmp(copy, original, shallow=False):
        sys.exit(f"{copy} is not the file that was committed")


def _commit(projects: Mapping[str, Project], file: Path) -> None:
    """Commit a version with each tool; with one, the objects of git-theta as files."""
    for tool in (THETA, LFS):
        projects[tool.name].put(file)
        projects[tool.name].git("add", Project.checkpoint)
    same = projects[SAME.name]
    for path in (projects[THETA.name].work / ".git/theta/objects").glob("*/*"):
        shutil.copyfile(path, same.work / f"{path.name}.bin")
    same.git("add", ".")
    for project in projects.values():
        project.git("commit", "-q", "-m", file.stem)


def _row(rows: list[Row], step: str, tool: str) -> Row:
    for row in rows:
        if (row.step, row.tool) == (step, tool):
            return row
    rows.append(Row(step, tool))
    return rows[-1]


def report(rows: Sequence[Row]) -> str:
    """Return the table; times of git-theta also as multiples of git-lfs's for the same objects."""
    head = [
        "step", "tool", "LFS requests", "all requests", "sent", "received", "time",
        "of the same objects", "processor time",
    ]  # fmt: skip
    steps = list(dict.fromkeys(row.step for row in rows))
    lines = []
    for row in sorted(rows, key=lambda row: steps.index(row.step)):
        same = next(r for r in rows if (r.step, r.tool) == (row.step, SAME.name))
        time = row.middle(lambda each: each.seconds)
        ours = row.tool == THETA.name
        lines.append(
            [
                row.step if row.tool == TOOLS[0].name else "",
                row.tool,
                f"{row.middle(lambda each: each.lfs):.0f}",
                f"{row.middle(lambda each: each.requests):.0f}",
                size(row.middle(lambda each: each.up)),
                size(row.middle(lambda each: each.down)),
                seconds(time),
                ratio(time, same.middle(lambda each: each.seconds)) if ours else "-",
                seconds(row.middle(lambda each: each.processor)),
            ]
        )
    return table(head, lines)


def too_many(rows: Sequence[Row]) -> list[str]:
    """Return the steps in which git-theta makes more LFS requests than it may."""
    found = {(row.step, row.tool): row.middle(lambda each: each.lfs) for row in rows}
    return [
        step
        for step, tool in found
        if tool == THETA.name and found[step, tool] > REQUESTS_LIMIT * found[step, SAME.name]
    ]


def main(arguments: list[str]) -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="scripts/bench network", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="times that all is run (3)")
    parser.add_argument("--round-trip", type=float, default=20, help="milliseconds (20)")
    parser.add_argument("--rate", type=float, default=100, help="Mbit/s each way (100)")
    parser.add_argument(
        "--write", action="store_true", help="write the table to docs/performance.md"
    )
    options = parser.parse_args(arguments)
    link = Link(options.round_trip / 1000, options.rate * 1e6 / 8)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="git-theta-bench-") as name:
        root = Path(name)
        # The server's git must not read the user's settings either.
        config = {"GIT_CONFIG_GLOBAL": f"{name}/gitconfig", "GIT_CONFIG_NOSYSTEM": "1"}
        os.environ.update(HOME=name, **config)
        (root / "gitconfig").write_text("[init]\n\tdefaultBranch = main\n")
        tuned, small = root / "fine-tune.safetensors", root / "small.safetensors"
        write_fine_tune(real_checkpoint(), tuned, ADAMW_NOISE)
        write_small(small)
        with watched() as load, host(root / "server", link) as served:
            for number in range(options.runs):
                print(f"bench: run {number + 1}", file=sys.stderr)
                files = [real_checkpoint(), tuned]
                run_case(root / f"model-{number}", served, "MiniLM", files, rows)
                run_case(root / f"small-{number}", served, "2,000 tensors", [small], rows)
    about = (
        f"{link}; medians of {plural(options.runs, 'run')}; others kept {load.others:.1f} cores "
        "busy meanwhile."
    )
    text = f"{about}\n\n{report(rows)}"
    print(text)
    if steps := too_many(rows):
        sys.exit(f"more than {REQUESTS_LIMIT} times git-lfs's requests: {', '.join(steps)}")
    if options.write:
        write_block(_PAGE, "network", text)


if __name__ == "__main__":
    main(sys.argv[1:])
