"""A command stopped, or failed, at each call that changes a file; nothing may be lost by it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.faults import Action, Faults, Outcome
from harness.scenes import MERGE, Scene
from harness.world import FILE, BrokenError, World


@dataclass
class Tally:
    """What happened at the points of one command; ``longest``: what one took, in seconds."""

    scene: str
    action: str
    calls: int
    points: int = 0
    failed: int = 0
    longest: float = 0.0
    problems: list[str] = field(default_factory=list)


def spread(calls: int, most: int) -> Iterable[int]:
    """At most ``most`` of the numbers from 1 to ``calls``, evenly spread, both ends included."""
    if calls <= most:
        return range(1, calls + 1)
    return sorted({1 + round(i * (calls - 1) / max(most - 1, 1)) for i in range(most)})


class Points:
    """Goes through the points of scenes in a world of its own below ``folder``."""

    def __init__(self, folder: Path, merges: bool = True) -> None:
        """Without ``merges``, which take seconds, there are no scenes with a merge."""
        self._folder = folder
        self.faults = Faults(folder)
        self.world = World(folder / "world")
        self.template = folder / "template"
        self.world.build()
        self.world.save(self.template)
        if merges:
            self.world.git(*MERGE)
            self.world.contents["merged"] = (self.world.work / FILE).read_bytes()

    def go(
        self, scene: Scene, action: Action, most: int, at: Sequence[int] = ()
    ) -> Iterator[Tally]:
        """Yield the tally after each of ``most`` points, or each of the calls ``at``."""
        world, prepared = self.world, self._folder / f"prepared-{scene.name}"
        world.restore(self.template)
        scene.prepare(world)
        world.save(prepared)
        before = (world.work / FILE).read_bytes()
        clean = self._run(scene, 0, action)
        if clean.status or not scene.ended(world):
            raise BrokenError(f"{scene.name} fails without any fault: {clean.words}")
        tally = Tally(scene.name, action, clean.calls)
        world.longest = 0.0
        for point in at or spread(clean.calls, most):
            world.restore(prepared)
            tally.points += 1
            try:
                outcome = self._run(scene, point, action)
                tally.failed += outcome.status != 0
                self._check(scene, before)
            except (BrokenError, OSError, subprocess.TimeoutExpired) as problem:
                tally.problems.append(f"{scene.name}, {action} at call {point}: {problem}")
                shutil.copytree(world.root, self._folder / f"{scene.name}-{action}-{point}")
            tally.longest = world.longest
            yield tally

    def _run(self, scene: Scene, point: int, action: Action) -> Outcome:
        world = self.world
        command = ["git", *scene.command]
        with world.timed():
            return self.faults.run(
                command, world.work, world.root, world.environment, point, action
            )

    def count(self, scene: Scene) -> int:
        """Return how many calls of ``scene``, in the world as it is, change a file."""
        return self._run(scene, 0, "kill").calls

    def _check(self, scene: Scene, before: bytes) -> None:
        world = self.world
        world.remove_locks()
        if scene.keeps_file and (world.work / FILE).read_bytes() != before:
            raise BrokenError("the file in the work tree changed")
        world.check_history()
        if scene.is_remote:
            world.check_clone()
        scene.again(world)
        if not scene.ended(world):
            raise BrokenError("doing it again did not finish it")
        world.check_fsck()
        left = [path.name for path in (world.work / ".git/theta").glob("tmp/*")]
        if len(left) > 64:
            raise BrokenError(f"{len(left)} temporary files pile up")
