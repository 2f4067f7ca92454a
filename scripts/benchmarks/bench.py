"""Measures git-theta beside git-lfs and cp: time, memory and stored bytes of each Git command.

Makes a synthetic bf16 checkpoint and a fine-tune of it in a scratch folder, runs the same steps
with each tool in turn, compares every file that comes back, prints a table and removes the
folder. All figures come from one run on one machine: trust the ratios.

`scripts/bench merge` measures merging: see its --help.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.checkpoint import BF16_NOISE, write_base, write_fine_tune
from benchmarks.machine import machine, startup
from benchmarks.sandbox import LFS, THETA, Project, Sandbox
from benchmarks.steps import Files, Result, measure, steps
from benchmarks.table import ratio, seconds, size, stored_ratio, table

_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_DISK_FACTOR = 15
"""Two source files, and for each tool a work tree, two stored versions, a remote and a clone."""


def main(arguments: list[str]) -> None:
    """Run the benchmark as the command line says."""
    options = _parse(arguments)
    with scratch_folder(options.dir, _DISK_FACTOR * options.size) as root:
        figures: dict[str, Any] = {"machine": machine(Sandbox(root))}
        if "startup" in options.only:
            figures["startup"] = startup(root)
        if wanted := [name for name in options.only if name != "startup"]:
            results, figures["bytes"] = run(root, wanted, options.size)
            figures["steps"] = [asdict(result) for result in results]
            print(f"\nOne file: {size(figures['bytes'])}, bf16\n\n{report(results)}\n")
    if "startup" in figures:
        times = ", ".join(f"{name} {value:.3f} s" for name, value in figures["startup"].items())
        print(f"start of the filter process: {times}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def run(root: Path, wanted: list[str], length: int) -> tuple[list[Result], int]:
    """Run the steps up to the last one wanted; return the results and the checkpoint's size."""
    plan = steps()
    last = max(index for index, step in enumerate(plan) if step.name in wanted)
    files = Files(root / "base.safetensors", root / "fine-tune.safetensors")
    _note(f"making a checkpoint of {size(length)} and a fine-tune of it")
    write_base(files.base, length)
    write_fine_tune(files.base, files.fine_tune, BF16_NOISE)
    projects = [Project(root / tool.name, tool) for tool in (LFS, THETA)]
    results = []
    for step in plan[: last + 1]:
        _note(f"{step.name}: {' '.join(step.command)}")
        results.append(measure(step, projects, files, root))
    return [result for result in results if result.step in wanted], files.base.stat().st_size


def report(results: list[Result]) -> str:
    """The table of times, peak memory and stored bytes."""
    ours, theirs = THETA.name, LFS.name
    head = [
        "step", "cp + sync", theirs, ours, "time", f"memory {theirs}", f"memory {ours}",
        "our process", f"stored {theirs}", f"stored {ours}", "stored",
    ]  # fmt: skip
    rows = []
    for result in results:
        us, them = result.usage[ours], result.usage[theirs]
        rows.append(
            [
                result.step,
                "-" if result.copy is None else f"{result.copy:.2f} + {result.sync:.2f} s",
                seconds(them.seconds),
                seconds(us.seconds),
                ratio(us.seconds, them.seconds),
                size(them.tree),
                size(us.tree),
                size(us.program),
                size(result.stored[theirs]),
                size(result.stored[ours]),
                stored_ratio(result.stored[ours], result.stored[theirs]),
            ]
        )
    return table(head, rows)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    names = [step.name for step in steps()] + ["startup"]
    parser.add_argument("--size", type=length, default="1g", help="of the checkpoint (default 1g)")
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
    return options


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
