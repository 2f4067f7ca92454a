"""Bits flipped in, bytes cut from, and the loss of every file that git-theta keeps."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from harness.world import FILE, BrokenError, World


@dataclass
class Tally:
    """Files under ``.git/theta``, damages done, those that fsck named, and what went wrong."""

    files: int = 0
    damaged: int = 0
    noticed: int = 0
    problems: list[str] = field(default_factory=list)


def _flip(file: Path, source: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    _replace(file, bytes(content))


def _cut(file: Path, source: random.Random) -> None:
    content = file.read_bytes()
    _replace(file, content[: source.randrange(len(content))])


def _remove(file: Path, source: random.Random) -> None:
    file.unlink()


def _replace(file: Path, content: bytes) -> None:
    # Another inode: an object may be one file with its copy in the LFS storage.
    mode = file.stat().st_mode
    file.unlink()
    file.write_bytes(content)
    file.chmod(mode & 0o777)


_DAMAGES: tuple[Callable[[Path, random.Random], None], ...] = (_flip, _cut, _remove)


def run(folder: Path, rounds: int, seed: int, most: int | None = None) -> Tally:
    """Damage each file in each way; what was pushed must come back, and nothing wrong ever.

    At most ``most`` damages are done.
    """
    source = random.Random(seed)
    world, template = World(folder / "world"), folder / "template"
    world.build()
    world.save(template)
    tally = Tally()
    files = [path for path in (world.work / ".git/theta").rglob("*") if path.is_file()]
    chosen = [path for path in files if path.stat().st_size]
    tally.files = len(chosen)
    for file, hurt in list(product(chosen, _DAMAGES * rounds))[:most]:
        world.restore(template)
        hurt(file, source)
        tally.damaged += 1
        try:
            noticed = _examine(world)
            # What is gone here and pushed is fetched when it is needed: no damage.
            if "objects" in file.parts and hurt is not _remove and not noticed:
                raise BrokenError("git theta fsck finds nothing wrong")
            tally.noticed += noticed
        except BrokenError as problem:
            name = file.relative_to(world.work)
            tally.problems.append(f"{hurt.__name__.strip('_')} {name}: {problem}")
    return tally


def _examine(world: World) -> bool:
    """Check that damage is named and mended; returns whether fsck named it."""
    noticed = world.try_git("theta", "fsck").returncode != 0
    _never_wrong(world)
    world.try_git("theta", "fsck", "--repair")
    world.try_git("theta", "fetch")
    world.git("theta", "fsck", "--full")
    world.check_history()
    return noticed


def _never_wrong(world: World) -> None:
    """A checkout of damaged objects fails, or gives the right bytes."""
    for commit, subject in world.commits(world.work):
        if subject in world.contents:
            done = world.try_git("cat-file", "--filters", f"{commit}:{FILE}")
            if done.returncode == 0 and done.stdout != world.contents[subject]:
                raise BrokenError(f"{subject} comes back as other bytes, with status 0")
