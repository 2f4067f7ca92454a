"""Several processes at once, each in a work tree of its own over one repository."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from harness.world import FILE, BrokenError, World, checkpoint


@dataclass
class Tally:
    """Commands run, those that Git or git-theta refused, and what went wrong."""

    commands: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)


def run(folder: Path, seconds: float, processes: int, seed: int) -> Tally:
    """Let ``processes`` workers commit, check out, collect, fetch and push for a while."""
    world = World(folder / "world")
    world.build()
    tally, lock = Tally(), threading.Lock()
    end = time.monotonic() + seconds
    trees = [world.work]
    for number in range(1, processes):
        tree = world.root / f"tree{number}"
        world.git("worktree", "add", "-q", "-b", f"branch{number}", str(tree), "main")
        trees.append(tree)
    workers = [
        threading.Thread(target=_work, args=(world, tree, end, seed + number, tally, lock))
        for number, tree in enumerate(trees)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    _check(world, tally)
    return tally


def _work(
    world: World, tree: Path, end: float, seed: int, tally: Tally, lock: threading.Lock
) -> None:
    source = random.Random(seed)
    branch = world.git("symbolic-ref", "--short", "HEAD", cwd=tree).decode().strip()
    while time.monotonic() < end:
        version = source.randrange(1, 12)
        content = checkpoint(version)
        key = f"sha {hashlib.sha256(content).hexdigest()}"
        commands: list[tuple[str, ...]] = source.choice(
            [
                [("add", FILE), ("commit", "-q", "--allow-empty", "-m", key)],
                [("add", FILE), ("commit", "-q", "--allow-empty", "-m", key)],
                [("checkout", "-q", "-f", "--detach", "HEAD~1"), ("checkout", "-q", "-f", branch)],
                [("theta", "gc", "--older-than", "0")],
                [("fetch", "-q", "origin")],
                [("push", "-q", "-f", "origin", f"HEAD:refs/heads/{tree.name}")],
                [("reset", "-q", "--hard", "HEAD~1")],
            ]
        )
        if commands[0][0] == "add":
            (tree / FILE).write_bytes(content)
        for command in commands:
            done = world.try_git(*command, cwd=tree)
            with lock:
                tally.commands += 1
                if done.returncode:
                    tally.refused += 1
                    words = done.stderr.decode(errors="replace")
                    if "Traceback" in words or "defect" in words:
                        tally.problems.append(f"git {' '.join(command)}: {words}")
            if done.returncode:
                break


def _check(world: World, tally: Tally) -> None:
    for commit, subject in world.commits(world.work):
        word, _, digest = subject.partition(" ")
        if word != "sha":
            continue
        done = world.try_git("cat-file", "--filters", f"{commit}:{FILE}")
        if done.returncode or hashlib.sha256(done.stdout).hexdigest() != digest:
            words = done.stderr.decode(errors="replace")
            tally.problems.append(f"{commit[:12]} does not come back: {words}")
    try:
        world.check_fsck()
    except BrokenError as problem:
        tally.problems.append(str(problem))
