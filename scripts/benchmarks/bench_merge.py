"""Measures merging: each strategy by itself, and `git theta merge` as a whole.

By itself, a strategy merges bf16 tensors in memory by its defaults, through the code that the tool
uses, on the CPU and on the GPU if there is one. GB/s count every byte of contributors, base,
statistics and result once, however often a strategy passes over them. Processor time is that of an
element, which other programs disturb less than the clock; "of average" is the speed by it (on a GPU
by the clock), as a multiple of that strategy's. Strategies that need a tensor whole merge one of
1024 x 1024. Beside it stand the memory-bandwidth floor, which is a plain copy of as many bytes in
the device's memory, and the strategy "nothing", which reads and widens every input and rounds one
of them. On a GPU the tensors start and end in the CPU's memory, so the floor is the speed at which
bytes reach it, and results must agree with the CPU's within one bf16 unit in the last place, but
for one element in 10,000.

As a whole, with --command, `git theta merge` merges branches of a repository in a scratch folder:
start-up, reading, decoding, merging, storing, the commit and the checkout. With --mergekit,
mergekit's own command does the same merge in turn, and without --command strategies are measured
too. Compare them where other programs leave the cores alone: the tables show how far the runs are
apart, and how many cores others used.

Examples:
  scripts/bench merge
  scripts/bench merge --mergekit ~/mergekit/bin/mergekit-yaml --write
  scripts/bench merge --size 1g --only ties,average --json figures.json
  scripts/bench merge --command --mergekit ~/mergekit/bin/mergekit-yaml --runs 3
  scripts/bench merge --command --contributors 4 -p scope=tensor
  scripts/bench merge --command --layers 19,9
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import mergekit
from benchmarks.bench import length, scratch_folder
from benchmarks.floors import cores, floors
from benchmarks.load import watched
from benchmarks.machine import machine
from benchmarks.merge_command import MODEL, Case, Ours, write_models
from benchmarks.merge_report import Compared, command_table, floors_text, speed_table
from benchmarks.merge_speed import (
    Model,
    Speed,
    devices,
    differences,
    fewest,
    known,
    make_model,
    measure,
    model_for,
    read_bytes,
)
from benchmarks.mergekit import Mergekit, equal_share
from benchmarks.pages import write_block
from benchmarks.sandbox import Sandbox
from benchmarks.table import size

_PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
_APART = 1e-4
"""The share of elements that may be more than one bf16 unit from the CPU's: at a threshold of
`arcee_fusion`, which lies among sums of float32, they fall on either side.
"""


def main(arguments: list[str]) -> None:
    """Run the benchmark as the command line says."""
    options = _parse(arguments)
    figures: dict[str, Any] = {}
    texts: list[str] = []
    if not options.command:
        figures |= _strategies(options, texts)
    if options.command or options.mergekit:
        figures |= _whole(options, texts)
    if options.write:
        write_block(_PAGE, "merge", "\n\n".join(texts))
    if options.json:
        with tempfile.TemporaryDirectory() as scratch:
            figures = {"machine": machine(Sandbox(Path(scratch))), **figures}
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if figures.get("astray"):
        sys.exit(f"not the CPU's result: {', '.join(figures['astray'])}")


def _show(texts: list[str], text: str) -> None:
    print(f"\n{text}")
    texts.append(text)


def _strategies(options: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    model = make_model(options.size or 128 << 20, max(options.contributors, fewest(options.only)))
    one = 2 * sum(each.count for each in model)
    matrices = f"{len(model)} bf16 {'matrix' if len(model) == 1 else 'matrices'}"
    _show(texts, f"{matrices}, {size(one)} for each contributor, {cores()} threads.")
    figures: dict[str, Any] = {"floors": [], "strategies": [], "astray": []}
    for device in options.device:
        with watched() as load:
            floor = floors(device, read_bytes(model), _runs(options, 3))
            speeds = list(_on(device, model, options))
        _show(
            texts, f"On {device}; {floors_text(floor)}; others kept {load.others:.1f} cores busy:"
        )
        _show(texts, speed_table(speeds, floor))
        figures["floors"].append(asdict(floor))
        figures["strategies"] += [asdict(speed) | {"rate": speed.rate} for speed in speeds]
        figures["astray"] += [f"{s.strategy} on {device}" for s in speeds if _is_astray(s)]
    return figures


def _on(device: str, model: Model, options: argparse.Namespace) -> Iterator[Speed]:
    for name in ("nothing", *options.only):
        _note(f"{name} on {device}")
        fitting = model_for(name, model)
        # Decompositions take seconds.
        runs = _runs(options, 3 if fitting is model else 1)
        speed, merged = measure(name, fitting, options.contributors, device, runs)
        if device != "cpu":
            _, expected = measure(name, fitting, options.contributors, "cpu", 1)
            speed.furthest, speed.apart = differences(merged, expected, fitting)
        yield speed


def _is_astray(speed: Speed) -> bool:
    if speed.furthest is None or speed.apart is None:
        return False
    return math.isnan(speed.furthest) or speed.apart > _APART


def _runs(options: argparse.Namespace, default: int) -> int:
    return int(options.runs or default)


def _whole(options: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    merges = [_compared(case, options) for case in _cases(options)]
    chosen = ", ".join([options.strategy, *options.parameter])
    _show(texts, f"The whole command: {chosen}, {cores()} threads.")
    _show(texts, command_table(merges))
    for merge in merges:
        if merge.equal is not None:
            share = f"{100 * merge.equal:.2f} %"
            _show(texts, f"{share} of the elements are the same in both results.")
    return {"merges": [asdict(merge) for merge in merges]}


def _cases(options: argparse.Namespace) -> list[Case]:
    return [
        Case(
            (options.command and options.size) or 1900 << 20,
            options.contributors,
            options.strategy,
            tuple(options.parameter),
            layers,
            device,
        )
        for layers in options.layers
        for device in options.device
    ]


def _compared(case: Case, options: argparse.Namespace) -> Compared:
    with scratch_folder(options.dir, 5 * (2 + case.contributors) * case.size) as root:
        models = root / "models"
        models.mkdir()
        _note(f"making checkpoints with {case.depth} layers")
        write_models(models, case)
        commands: list[Ours | Mergekit] = [Ours(root / "ours", models, case)]
        if options.mergekit:
            commands.append(Mergekit(models, options.mergekit, case, options.mergekit_dtype))
        for number in range(_runs(options, 1)):
            for command in commands:
                _note(f"{command.runs.command}, run {number + 1}")
                command.run()
        results = [command.result for command in commands]
        equal = equal_share(*results) if options.mergekit else None
        held = (models / "base" / MODEL).stat().st_size
        return Compared(case, held, [command.runs for command in commands], equal)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench merge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--size", type=length, help="bytes of a contributor (default 128m; 1900m of --command)")
    add("--contributors", type=_number, default=2, metavar="N", help="are merged (default 2)")
    add("--runs", type=_number, metavar="N", help="medians are shown (default 3; 1 of --command)")
    add("--write", action="store_true", help="write the tables to docs/performance.md")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    add("--only", type=_words, default=known(), metavar="NAMES", help=f"of {','.join(known())}")
    add("--device", type=_words, default=devices(), help=f"of {','.join(devices())}")
    _add_whole(parser.add_argument_group("the whole command"))
    options = parser.parse_args(arguments)
    if wrong := _problem(options):
        parser.error(wrong)
    return options


def _add_whole(group: Any) -> None:
    add = group.add_argument
    add("--command", action="store_true", help="measure git theta merge as a whole")
    add("--strategy", default="ties", help="by which it merges (default ties)")
    add("-p", dest="parameter", type=_pair, action="append", default=[], metavar="KEY=VALUE")
    add("--layers", type=_numbers, default=[None], metavar="N,...", help="one merge for each depth")
    add("--mergekit", type=Path, metavar="PATH", help="mergekit-yaml, to be measured in turn")
    add("--mergekit-dtype", choices=["float32", "bfloat16"], default="float32")
    add("--dir", type=Path, help="where to make the scratch folder")


def _problem(options: argparse.Namespace) -> str | None:
    for name, allowed in (("only", known()), ("device", devices())):
        if unknown := set(getattr(options, name)) - set(allowed):
            return f"--{name}: {', '.join(sorted(unknown))} not of {', '.join(allowed)}"
    if not options.mergekit:
        return None
    if not options.mergekit.is_file():
        return f"--mergekit: {options.mergekit} is no file"
    found = mergekit.problem(_cases(options)[0])
    return f"--mergekit: {found}" if found else None


def _number(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError("not a number from 1")
    return int(text)


def _numbers(text: str) -> list[int]:
    return [_number(word) for word in _words(text)]


def _pair(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError("not KEY=VALUE")
    return text


def _words(text: str) -> list[str]:
    return text.split(",")


def _note(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
