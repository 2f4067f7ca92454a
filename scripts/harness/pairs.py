"""Two commands at once: one stopped at a call that changes a file, while the other runs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from harness.points import Points, spread
from harness.scenes import SCENES, Scene
from harness.world import BrokenError

NAMES = ("add", "commit", "checkout", "merge", "gc", "fetch", "push")
# A colleague moved the branch in the one scene, so Git refuses the push of the other.
_APART = {"fetch", "push"}


@dataclass
class Tally:
    """What happened at the points of one pair."""

    pair: str
    calls: int
    points: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)


def chosen(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each pair of commands, which may be the same twice."""
    for first, second in product(names or NAMES, names or NAMES):
        if {first, second} != _APART:
            yield first, second


def go(points: Points, first: Scene, second: Scene, most: int) -> Iterator[Tally]:
    """Yield the tally after each point at which ``first`` was stopped, while ``second`` ran.

    Objects of a commit that was given up lie about: they are used again, and collected.
    """
    world, prepared = points.world, points.template.with_name("prepared-pair")
    world.restore(points.template)
    SCENES["gc"].prepare(world)
    for scene in dict.fromkeys((second, first)):
        if scene.name != "gc":
            scene.prepare(world)
    world.save(prepared)
    tally = Tally(f"{first.name} stopped, {second.name} runs", points.count(first))
    # A collection that finds nothing changes no file: then one runs after the other.
    for at in spread(tally.calls, most) or (0,):
        world.restore(prepared)
        tally.points += 1
        try:
            statuses = _run(points, first, second, at)
            tally.refused += any(statuses)
            world.remove_locks()
            first.again(world)
            for check in (world.check_history, world.check_fsck):
                check()
        except (BrokenError, OSError, subprocess.TimeoutExpired) as problem:
            tally.problems.append(f"{tally.pair}, at call {at}: {problem}")
        yield tally


def _run(points: Points, first: Scene, second: Scene, at: int) -> tuple[int, int]:
    world = points.world
    root: Path = world.root
    commands = (["git", *first.command], ["git", *second.command])
    return points.faults.run_beside(
        commands[0], world.work, root, world.environment, at, commands[1]
    )
