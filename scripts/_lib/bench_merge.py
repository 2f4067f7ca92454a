"""Measures merging: each strategy by itself, or `git theta merge` as a whole.

By itself, a strategy merges bf16 tensors in memory by its defaults, through the code that the tool
uses, on the CPU and on the GPU if there is one. GB/s count every byte of contributors, base,
statistics and result once, however often a strategy passes over them. Beside it stand the
memory-bandwidth floor, which is a plain copy in the device's memory, and the strategy "nothing",
which reads and widens every input and rounds one of them. Results on a GPU are compared with the
CPU's.

As a whole, with --command, `git theta merge` merges branches of a repository in a scratch folder:
start-up, reading, decoding, merging, storing, the commit and the checkout. With --mergekit,
mergekit's own command does the same merge in turn.

Examples:
  scripts/bench merge
  scripts/bench merge --size 1g --only ties,average --json figures.json
  scripts/bench merge --command --mergekit ~/mergekit/bin/mergekit-yaml --runs 3
  scripts/bench merge --command --contributors 4 -p scope=tensor
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _lib import merge_command, merge_speed
from _lib.bench import length, scratch_folder
from _lib.merge_command import Case, Mergekit, Ours, Runs
from _lib.merge_speed import Speed
from _lib.table import ratio, seconds, size, table

# Larger than any cache.
_FLOOR_SIZE = 1 << 30


def main(arguments: list[str]) -> None:
    """Run the benchmark as the command line says."""
    options = _parse(arguments)
    figures = _whole(options) if options.command else _strategies(options)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


# --- strategies ----------------------------------------------------------------------------------


def _strategies(options: argparse.Namespace) -> list[dict[str, Any]]:
    model = merge_speed.make_model(options.size or 256 << 20, options.contributors)
    read = sum(2 * each.count for each in model)
    print(f"\n{len(model)} bf16 matrices, {size(read)} for each contributor, {_threads()}\n")
    found = [speed for device in options.device for speed in _on(device, model, options)]
    return [asdict(speed) | {"rate": speed.rate} for speed in found]


def _on(device: str, model: merge_speed.Model, options: argparse.Namespace) -> list[Speed]:
    floor = merge_speed.copy_rate(device, _FLOOR_SIZE, options.runs)
    speeds = []
    for name in ("nothing", *options.only):
        print(f"bench: {name} on {device}", file=sys.stderr)
        speed, merged = merge_speed.measure(name, model, device, options.runs)
        if device != "cpu":
            _, expected = merge_speed.measure(name, model, "cpu", 1)
            speed.furthest = merge_speed.furthest(merged, expected)
        speeds.append(speed)
    print(f"On {device}; {_floors(device, floor, options.runs)}:\n")
    print(_table(speeds, floor) + "\n")
    return speeds


def _floors(device: str, floor: float, runs: int) -> str:
    text = f"its memory copies at {floor:.1f} GB/s"
    if device == "cpu":
        return text
    return f"{text}, {merge_speed.transfer_rate(device, _FLOOR_SIZE, runs):.1f} GB/s reach it"


def _table(speeds: list[Speed], floor: float) -> str:
    head = ["strategy", "time", "GB/s", "of the floor", "of nothing"]
    nothing = speeds[0].rate
    rows = [
        [
            speed.strategy,
            seconds(sorted(speed.seconds)[len(speed.seconds) // 2]),
            f"{speed.rate:.2f}",
            ratio(speed.rate, floor),
            ratio(speed.rate, nothing),
        ]
        for speed in speeds
    ]
    if any(speed.furthest is not None for speed in speeds):
        head.append("bf16 steps from the CPU")
        rows = [[*row, str(speed.furthest)] for row, speed in zip(rows, speeds, strict=True)]
    return table(head, rows)


def _threads() -> str:
    return f"{os.cpu_count()} threads"


# --- the whole command ---------------------------------------------------------------------------


def _whole(options: argparse.Namespace) -> list[dict[str, Any]]:
    case = Case(
        options.size or 1900 << 20, options.contributors, options.strategy, tuple(options.parameter)
    )
    with scratch_folder(options.dir, 5 * (2 + case.contributors) * case.size) as root:
        models = root / "models"
        models.mkdir()
        print("bench: making checkpoints", file=sys.stderr)
        merge_command.write_models(models, case)
        ours = Ours(root / "ours", models, case)
        measured: dict[str, tuple[Ours | Mergekit, Runs]] = {
            "git theta merge": (ours, Runs("git theta merge"))
        }
        if options.mergekit:
            kit = Mergekit(models, options.mergekit, case, options.mergekit_dtype)
            measured["mergekit-yaml"] = (kit, Runs(f"mergekit-yaml ({options.mergekit_dtype})"))
        for number in range(options.runs):
            for name, (command, runs) in measured.items():
                print(f"bench: {name}, run {number + 1}", file=sys.stderr)
                os.sync()
                runs.usage.append(command.run())
        _report([runs for _, runs in measured.values()], case)
        if options.mergekit:
            results = [command.result for command, _ in measured.values()]
            share = merge_command.equal_share(*results)
            print(f"{100 * share:.2f} % of the elements are the same in both results.\n")
    return [asdict(runs) for _, runs in measured.values()]


def _report(measured: list[Runs], case: Case) -> None:
    first = measured[0].seconds
    rows = [
        [
            runs.command,
            seconds(runs.seconds),
            ratio(first, runs.seconds),
            size(runs.memory),
        ]
        for runs in measured
    ]
    chosen = ", ".join([case.strategy, *case.parameters])
    print(f"\n{chosen} of {case.contributors} fine-tunes, {size(case.size)} each, {_threads()}\n")
    print(table(["command", "time", "ours as a share", "peak memory"], rows) + "\n")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench merge",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known, devices = merge_speed.known(), merge_speed.devices()
    add = parser.add_argument
    add("--size", type=length, help="bytes of a contributor (default 256m; 1900m with --command)")
    add("--contributors", type=int, default=2, metavar="N", help="how many are merged (default 2)")
    add("--runs", type=int, default=3, metavar="N", help="how often; medians are shown (default 3)")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    add("--only", type=_words, default=known, metavar="NAMES", help=f"of {','.join(known)}")
    add("--device", type=_words, default=devices, help=f"of {','.join(devices)}")
    add("--command", action="store_true", help="measure git theta merge as a whole")
    add("--strategy", default="ties", help="with --command (default ties)")
    add("-p", dest="parameter", action="append", default=[], metavar="KEY=VALUE")
    add("--mergekit", type=Path, metavar="PATH", help="mergekit-yaml, to be measured in turn")
    add("--mergekit-dtype", default="float32", help="in which it computes (default float32)")
    add("--dir", type=Path, help="where to make the scratch folder")
    options = parser.parse_args(arguments)
    for name, wanted, allowed in (
        ("only", options.only, known),
        ("device", options.device, devices),
    ):
        if unknown := set(wanted) - set(allowed):
            parser.error(f"--{name}: {', '.join(sorted(unknown))} not of {', '.join(allowed)}")
    return options


def _words(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main(sys.argv[1:])
