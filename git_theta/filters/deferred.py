"""Manifests in the work tree, turned into the files that they stand for, without git's help.

Git holds a smudged file in memory whole, so large checkpoints (``theta.directAbove``) and those
checked out with ``theta.smudge=false`` arrive as manifests. Here they are written straight to
disk, chunk by chunk.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from git_theta import manifest
from git_theta.checkpoint.smudge import smudge_to
from git_theta.core.files import atomic_file
from git_theta.core.os_errors import AGAIN, store_error
from git_theta.errors import ChangedError, ThetaError
from git_theta.git import hooks, index_memory, index_stats, worktree
from git_theta.git.index_stats import Written
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace

_SHOWN = 5
"""Further files that an error names."""


class Stub(NamedTuple):
    """A work-tree file that is still a manifest. ``path`` is relative to the work tree's top."""

    path: str
    text: bytes
    described: Manifest


def stubs(
    workspace: Workspace, paths: Iterable[str], complain: Callable[[ThetaError], None]
) -> Iterator[Stub]:
    """Yield those of ``paths`` whose file in the work tree is a manifest.

    One that cannot be read is told to ``complain``, and the others follow.
    """
    for path in paths:
        file = _file(workspace, path)
        try:
            text = _read_manifest(file) if _is_inside(workspace, file) else None
            described = manifest.parse(text) if text is not None else None
        except ThetaError as error:
            complain(error.at(path))
            continue
        if text is not None and described is not None:
            yield Stub(path, text, described)


def checkout_deferred(workspace: Workspace, paths: Iterable[str]) -> list[str]:
    """Replace each manifest at ``paths`` by its file; return the paths of those.

    What they lack is fetched in one go. Each file appears whole or not at all, and git then knows
    that it is unmodified. Where one cannot be had, the others are written, and the first error is
    raised, with the others as details.
    """
    began, problems = time.time_ns(), list[ThetaError]()
    waiting = list(stubs(workspace, paths, problems.append))
    # Chunks are decoded as their objects come.
    fetched, failed = _begin_fetch(workspace, waiting), list[ThetaError]()
    done: list[str] = []
    written: dict[str, Written] = {}
    for stub in waiting:
        with _gathering(failed, stub.path):
            status = _write(workspace, stub, began)
            done.append(stub.path)
            if status:
                written[stub.path] = Written(_file(workspace, stub.path), status, stub.text)
    with _gathering(failed):
        known = _record(workspace, written)
        worktree.refresh(workspace.repo, (path for path in done if path not in known))
    problems += [*fetched(), *failed]
    if problems:
        first, *others = problems
        named = [f"{error.path}: {error.message}" for error in others if error.path]
        first.details = (*first.details, *named[:_SHOWN])
        raise first
    return done


def _begin_fetch(workspace: Workspace, waiting: list[Stub]) -> Callable[[], list[ThetaError]]:
    """Begin to fetch what stubs lack, in one go; return what waits for it and says what failed."""
    with suppress(ThetaError):  # of a store that may not be looked into: each stub has it told
        if all(workspace.store.has(oid) for stub in waiting for oid in stub.described.objects()):
            return list
    from git_theta import transfer  # takes 12 ms to import, and a checkout needs it seldom

    workspace.repo.read_settings_once()
    return transfer.fetch_beside(workspace, (stub.described for stub in waiting)).result


@contextmanager
def _gathering(problems: list[ThetaError], path: str | None = None) -> Iterator[None]:
    """Keep an error, of the file at ``path``, instead of raising it."""
    try:
        yield
    except ThetaError as error:
        problems.append(error.at(path) if path else error)


def defer(workspace: Workspace, path: str) -> None:
    """Note that ``path`` is checked out as a manifest, for the hook that runs when git is done."""
    pending = _pending(workspace)
    try:
        with pending.open("ab") as file:
            file.write(os.fsencode(path) + b"\0")
    except OSError as error:
        raise store_error(error, pending) from error


def checkout_pending(workspace: Workspace) -> None:
    """Do the same for the paths that were noted, after git has written its index.

    What it caused to be written before is put into this one, too.
    """
    repo, pending = workspace.repo, take_deferred(workspace)
    note, writer = repo.git_dir / hooks.WRITTEN, os.environ.get(hooks.WRITER, "")
    before = index_memory.restore(note, writer, repo.index_file, repo.work_tree or Path())
    try:
        checkout_deferred(workspace, pending)
    except ThetaError as error:
        # Git's command would not run us again: it has what it asked for.
        error.hint = error.hint and error.hint.replace(AGAIN, "git theta checkout")
        raise
    finally:
        if pending:
            index_memory.keep(note, writer, repo.index_file, {*before, *pending})


def take_deferred(workspace: Workspace) -> list[str]:
    """Return the paths that were noted, once: a hook that they cause to run finds none."""
    pending = _pending(workspace)
    taken = pending.with_name(f"{pending.name}.{os.getpid()}")
    try:
        pending.replace(taken)
    except FileNotFoundError:
        return []
    paths = os.fsdecode(taken.read_bytes()).split("\0")
    taken.unlink()
    return sorted(set(filter(None, paths)))


def _pending(workspace: Workspace) -> Path:
    # In the work tree's own git directory: paths differ between work trees.
    return workspace.repo.git_dir / hooks.PENDING


def _record(workspace: Workspace, written: Mapping[str, Written]) -> set[str]:
    """Let git's index say that files are unmodified; return the paths of which it does.

    Git writes it anew before: it reads files of the second of its index, and later ones.
    """
    if written and worktree.renew_index(workspace.repo, list(written)):
        return index_stats.record(workspace.repo.index_file, written)
    return set()


def _write(workspace: Workspace, stub: Stub, began: int) -> os.stat_result | None:
    """Put the file in the stub's place; return its status if nobody has changed it already."""
    file = _file(workspace, stub.path)
    try:
        mode = file.stat().st_mode & 0o7777
    except FileNotFoundError as error:
        raise ChangedError("the file is gone meanwhile") from error
    # Not synced, as Git does not sync what it checks out: it can be checked out again.
    aside = workspace.store.root / "tmp"
    with atomic_file(file, mode, aside=aside, sync_content=False, sync_name=False) as output:
        smudge_to(stub.described, workspace.storage, output, stub.path)
        if _read_manifest(file) != stub.text:
            raise ChangedError("the file changed meanwhile and was left as it is")
        status = index_stats.backdate(output, began)
    return index_stats.placed(file, status) if status else None


def _file(workspace: Workspace, path: str) -> Path:
    return (workspace.repo.work_tree or Path()) / path


def _is_inside(workspace: Workspace, file: Path) -> bool:
    """Return whether no folder on the way is a link that leads out of the work tree."""
    top = os.path.realpath(workspace.repo.work_tree or Path())
    # Path.resolve raises RuntimeError for a link to itself.
    return Path(os.path.realpath(file.parent)).is_relative_to(top)


def _read_manifest(file: Path) -> bytes | None:
    """Return the manifest that ``file`` is; a link to it is not followed."""
    try:
        if file.is_symlink() or not file.is_file() or file.stat().st_size > manifest.MAX_BYTES:
            return None
        with file.open("rb") as reader:
            head = reader.read(16)
            return head + reader.read() if manifest.is_manifest(head) else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise store_error(error, file) from error
