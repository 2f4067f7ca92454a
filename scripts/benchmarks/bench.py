"""Measures git-theta beside git-lfs and cp: time, memory and stored bytes of each Git command.

Makes a synthetic bf16 checkpoint, a dense fine-tune, a merged LoRA and a change of 1 % of the
weights in a scratch folder, runs the same steps with each tool in turn, several times, compares
every file that comes back, prints tables and removes the folder. Takes less than 10 minutes. All
figures come from one machine: trust the ratios.

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
from statistics import median
from typing import Any

from benchmarks.checkpoint import (
    BF16_NOISE,
    write_base,
    write_fine_tune,
    write_lora,
    write_sparse,
)
from benchmarks.load import Load, watched
from benchmarks.machine import machine, startup
from benchmarks.pages import write_block
from benchmarks.sandbox import LFS, THETA, Project, Sandbox
from benchmarks.stages import Stage, chunk_bytes, stages
from benchmarks.steps import Files, Result, measure, steps
from benchmarks.table import ratio, seconds, size, stored_ratio, table

_OTHERS = ("stages", "startup")
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_DISK_FACTOR = 20
"""Four source files, and for each tool a work tree, four stored versions, a remote and a clone."""

_PAGE = Path(__file__).parents[2] / "docs/performance.md"


def main(arguments: list[str]) -> None:
    """Run the benchmark as the command line says."""
    options = _parse(arguments)
    with scratch_folder(options.dir, _DISK_FACTOR * options.size) as root:
        figures: dict[str, Any] = {"machine": machine(Sandbox(root))}
        texts = []
        if wanted := [name for name in options.only if name not in _OTHERS]:
            with watched() as load:
                results, length = run(root, wanted, options.size, options.runs)
            figures |= {"bytes": length, "steps": [asdict(result) for result in results]}
            texts.append(_conditions(figures, options.runs, load) + "\n\n" + report(results))
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


def run(root: Path, wanted: list[str], length: int, runs: int) -> tuple[list[Result], int]:
    """Run the steps up to the last one wanted; return the results and the checkpoint's size."""
    plan = steps()
    last = max(index for index, step in enumerate(plan) if step.name in wanted)
    _note(f"making a checkpoint of {size(length)} and three changes of it")
    files = Files(*(root / f"{name}.safetensors" for name in ("base", "dense", "lora", "sparse")))
    write_base(files.base, length)
    write_fine_tune(files.base, files.fine_tune, BF16_NOISE)
    write_lora(files.base, files.lora)
    write_sparse(files.base, files.sparse, 0.01)
    results = [Result(step.name) for step in plan[: last + 1]]
    for number in range(runs):
        folder = root / f"run-{number}"
        projects = [Project(folder / tool.name, tool) for tool in (LFS, THETA)]
        for step, result in zip(plan, results, strict=False):
            _note(f"run {number + 1}: {step.name}: {' '.join(step.command)}")
            # In turn: who comes first finds other pages in memory.
            measure(step, projects[:: 1 - 2 * (number % 2)], files, root, result)
        shutil.rmtree(folder)
    return [result for result in results if result.step in wanted], files.base.stat().st_size


def report(results: list[Result]) -> str:
    """The table of times, peak memory and stored bytes: medians, and the spread of ours."""
    ours, theirs = THETA.name, LFS.name
    head = [
        "step", "cp + sync", theirs, ours, "fastest to slowest", "time", "processor time",
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
                f"{median(result.copy):.2f} + {median(result.sync):.2f} s" if result.copy else "-",
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


def _conditions(figures: dict[str, Any], runs: int, load: Load) -> str:
    of = figures["machine"]
    lfs = of["git-lfs"].split()[0]
    return (
        f"One file of {size(figures['bytes'])}, bf16; medians of {runs} run{'s'[: runs != 1]}, the "
        f"tools in turn. {of['processor']}, {of['cores']} cores; {of['git']}, {lfs}; "
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
        "--size", type=length, default="400m", help="of the checkpoint (default 400m)"
    )
    parser.add_argument("--runs", type=int, default=3, help="times that all is run (default 3)")
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
