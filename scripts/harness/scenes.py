"""The commands in which faults happen: how each begins, and what must hold when it has ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.world import FILE, BrokenError, World, checkpoint


@dataclass(frozen=True)
class Scene:
    """``command`` is run in the world that ``prepare`` made.

    ``again`` finishes the work after a fault, as a user would; ``ended`` says that all is done.
    ``keeps_file``: the command has no business in the work tree's file. ``is_remote``: it has some
    on the remote, which a clone then shows.
    """

    name: str
    command: tuple[str, ...]
    prepare: Callable[[World], None]
    again: Callable[[World], None]
    ended: Callable[[World], bool]
    keeps_file: bool = True
    is_remote: bool = False


def _write(key: str) -> Callable[[World], None]:
    return lambda world: world.write(key)


def _run(*command: str) -> Callable[[World], None]:
    def run(world: World) -> None:
        world.git(*command)

    return run


def _nothing(world: World) -> None:
    """The world is as it should be."""


def _is_staged(key: str) -> Callable[[World], bool]:
    return lambda world: world.git("cat-file", "--filters", f":{FILE}") == world.contents[key]


def _is_head(key: str) -> Callable[[World], bool]:
    def check(world: World) -> bool:
        return (
            world.git("log", "-1", "--format=%s").decode().strip() == key
            and (world.work / FILE).read_bytes() == world.contents[key]
        )

    return check


def _commit_again(world: World) -> None:
    # On any branch: another command may have switched after the commit.
    if b"v4" not in world.git("log", "--branches", "HEAD", "--format=%s").split():
        world.git("commit", "-q", "-a", "-m", "v4")


def _check_out_again(world: World) -> None:
    world.git("checkout", "-q", "-f", "rte")
    # What the hook did not come to is a manifest, and to git unmodified.
    world.git("theta", "checkout")


def _merge_again(world: World) -> None:
    if world.git("log", "-1", "--format=%s").strip() != b"merged":
        if world.try_git("merge", "--abort").returncode:
            world.git("reset", "-q", "--hard", "HEAD")
        world.git(*MERGE)
    # A kill between the commit and the work tree leaves what any `git merge` would.
    world.git("checkout", "-q", "-f", "main")


def _resolve_again(world: World) -> None:
    if world.git("ls-files", "--unmerged"):
        world.git(*_RESOLVE)
    world.git("checkout", "-q", "-f", "--", FILE)


def _conflict(world: World) -> None:
    if world.try_git("merge", "-q", "rte").returncode == 0:
        raise BrokenError("both sides changed tensors, and git merge went through")


def _unpushed(world: World) -> None:
    world.commit("v4")


def _colleague_pushes(world: World) -> None:
    world.commit("v5", world.other)
    world.git("push", "-q", "origin", "main", cwd=world.other)


def _abandon(world: World) -> None:
    world.commit("v4")
    world.git("reset", "-q", "--hard", "HEAD~1")
    world.git("reflog", "expire", "--expire=now", "--all")
    world.git("update-ref", "-d", "ORIG_HEAD")


def _pull_again(world: World) -> None:
    world.git("fetch", "-q", "origin")
    world.git("reset", "-q", "--hard", "origin/main")


def _exported(world: World) -> None:
    world.git(*_EXPORT)


def _is_migrated(begin: bytes) -> Callable[[World], bool]:
    """Return the check that git has every version on each branch as something that begins so."""

    def check(world: World) -> bool:
        stored = (world.git("show", f"{branch}:{FILE}") for branch in ("main", "rte", "main~1"))
        file = (world.work / FILE).read_bytes()
        is_clean = not world.git("status", "--porcelain")
        return (
            all(b.startswith(begin) for b in stored) and file == world.contents["v2"] and is_clean
        )

    return check


_IMPORT = ("theta", "migrate", "import", "--everything")
_EXPORT = ("theta", "migrate", "export", "--everything", "--plain")
MERGE = ("theta", "merge", "rte", "--strategy", "average", "-m", "merged")
_RESOLVE = ("theta", "resolve", FILE, "--strategy", "average")

SCENES = {
    scene.name: scene
    for scene in (
        Scene(
            "add",
            ("add", FILE),
            _write("v4"),
            _run("add", FILE),
            _is_staged("v4"),
        ),
        Scene(
            "commit",
            ("commit", "-q", "-a", "-m", "v4"),
            _write("v4"),
            _commit_again,
            _is_head("v4"),
        ),
        Scene(
            "checkout",
            ("checkout", "-q", "rte"),
            _nothing,
            _run("checkout", "-q", "-f", "rte"),
            _is_head("v3"),
            keeps_file=False,
        ),
        Scene(
            "checkout-large",
            ("-c", "theta.directAbove=0", "checkout", "-q", "rte"),
            _nothing,
            _check_out_again,
            _is_head("v3"),
            keeps_file=False,
        ),
        Scene("merge", MERGE, _nothing, _merge_again, _is_head("merged"), keeps_file=False),
        Scene(
            "resolve", _RESOLVE, _conflict, _resolve_again, _is_staged("merged"), keeps_file=False
        ),
        Scene(
            "push",
            ("push", "-q", "origin", "main"),
            _unpushed,
            _run("push", "-q", "origin", "main"),
            lambda world: (
                world.git("rev-parse", "main") == world.git("rev-parse", "main", cwd=world.remote)
            ),
            is_remote=True,
        ),
        Scene(
            "fetch",
            ("pull", "-q", "--ff-only", "origin", "main"),
            _colleague_pushes,
            _pull_again,
            _is_head("v5"),
            keeps_file=False,
            is_remote=True,
        ),
        Scene(
            "gc",
            ("theta", "gc", "--older-than", "0"),
            _abandon,
            _run("theta", "gc", "--older-than", "0"),
            _is_head("v2"),
        ),
        Scene("import", _IMPORT, _exported, _run(*_IMPORT), _is_migrated(b'{"git-theta"')),
        Scene("export", _EXPORT, _nothing, _run(*_EXPORT), _is_migrated(checkpoint(1)[:8])),
    )
}
