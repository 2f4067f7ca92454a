"""The tables of `scripts/bench merge`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.floors import Floors
from benchmarks.merge_command import Case, Runs
from benchmarks.merge_speed import Speed
from benchmarks.table import ratio, seconds, size, table


@dataclass(frozen=True)
class Compared:
    """The commands that did one merge; ``bytes`` are those of one checkpoint.

    ``equal`` is the share of the elements that are the same in both results.
    """

    case: Case
    bytes: int
    commands: Sequence[Runs]
    equal: float | None = None


def speed_table(speeds: Sequence[Speed], floors: Floors) -> str:
    """Strategies on one device; the first of them is "nothing"."""
    head = ["strategy", "GB/s", "of the floor", "of nothing", "processor time", "of average"]
    # What a GPU takes is no processor time.
    costs = [speed.cost if floors.transfer is None else speed.pace for speed in speeds]
    names = [speed.strategy for speed in speeds]
    average = costs[names.index("average")] if "average" in names else 0.0
    rows = [
        [
            speed.strategy,
            f"{speed.rate:.2f}",
            ratio(speed.rate, floors.transfer or floors.copy),
            ratio(speed.rate, speeds[0].rate),
            f"{speed.cost:.1f} ns",
            ratio(average, cost) if average else "-",
        ]
        for speed, cost in zip(speeds, costs, strict=True)
    ]
    if any(speed.furthest is not None for speed in speeds):
        head += ["bf16 units from the CPU", "more than one"]
        rows = [[*row, *_distance(speed)] for row, speed in zip(rows, speeds, strict=True)]
    return table(head, rows)


def _distance(speed: Speed) -> list[str]:
    if speed.furthest is None or speed.apart is None:
        return ["-", "-"]
    return [
        f"{speed.furthest:.2f}",
        f"{1e6 * speed.apart:.0f} of a million" if speed.apart else "none",
    ]


def floors_text(floors: Floors) -> str:
    """The floors in words."""
    text = f"its memory copies at {floors.copy:.1f} GB/s"
    if floors.transfer is None:
        return text
    return f"{text}, {floors.transfer:.1f} GB/s reach it from the CPU's"


def command_table(merges: Sequence[Compared]) -> str:
    """Every command of every merge; the first command of a merge is ours."""
    head = ["model", "contributors", "command", "time", "fastest to slowest", "ours as a share"]
    head += ["processor time", "cores others used", "peak memory"]
    return table(head, [_row(merge, runs) for merge in merges for runs in merge.commands])


def _row(merge: Compared, runs: Runs) -> list[str]:
    fastest, slowest = runs.range
    return [
        f"{size(merge.bytes)}, {merge.case.depth} layers",
        str(merge.case.contributors),
        runs.command,
        seconds(runs.seconds),
        f"{seconds(fastest)} to {seconds(slowest)}",
        ratio(merge.commands[0].seconds, runs.seconds),
        seconds(runs.processor),
        f"{runs.others:.1f}",
        size(runs.memory),
    ]
