"""The end of a migration: refs move in one transaction, and the work tree follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from git_theta.commands.migrate import backups, opening, work_tree
from git_theta.commands.migrate.request import Outcome, Request
from git_theta.commands.migrate.work_tree import Note, Pending
from git_theta.core.files import atomic_file
from git_theta.errors import GitError
from git_theta.git import Repository, ref_updates
from git_theta.git.command import decode
from git_theta.git.ref_updates import RefChange
from git_theta.workspace import Workspace


def move(
    workspace: Workspace,
    folder: Path,
    outcome: Outcome,
    commits: Mapping[str, str],
    request: Request,
    reason: str,
) -> Outcome:
    """Move the refs of ``outcome``, keeping what they were. Raises ``GitError``, or nothing moved.

    ``commits`` has the new id of each commit by the old one.
    """
    repo = workspace.repo
    if not outcome.moved:
        return outcome
    check_connected(repo, (new for _, new in outcome.moved.values()))
    number = backups.next_number(repo)
    map_file = folder / str(number) / "commits"
    _write_map(map_file, commits)
    if request.map_file:
        _write_map(request.map_file, commits)
    changes = backups.kept(number, outcome.moved)
    _move(workspace, Note(folder), outcome.moved, changes, reason)
    return replace(
        outcome,
        number=number,
        map_file=request.map_file or map_file,
        left=_left(repo, commits),
    )


def undo(workspace: Workspace) -> tuple[int, Mapping[str, tuple[str, str]]]:
    """Take the last migration back; return its number and the refs that moved.

    Raises ``UsageError`` where a ref has moved since, or the work tree has changes.
    """
    with ExitStack() as stack:
        folder = opening.locked(stack, workspace)
        number, moved, changes = backups.undone(workspace.repo)
        if workspace.repo.work_tree is not None:
            work_tree.check_clean(workspace.repo)
            work_tree.check_elsewhere(workspace.repo, moved)
        _move(workspace, Note(folder), moved, changes, "git theta migrate undo")
    return number, moved


def _move(
    workspace: Workspace,
    note: Note,
    moved: Mapping[str, tuple[str, str]],
    changes: Iterable[RefChange],
    reason: str,
) -> None:
    repo = workspace.repo
    branch = ref_updates.current_branch(repo)
    follows = repo.work_tree is not None and branch in moved
    if follows:
        old, new = moved[branch or ""]
        # Minutes may have passed, in which somebody edited a file.
        work_tree.check_clean(repo)
        work_tree.check_room(repo, old, new)
        note.write(Pending(str(repo.git_dir), old, new))
    try:
        ref_updates.update(repo, changes, reason)
    except GitError as error:
        if follows and repo.resolve("HEAD") != new:
            note.remove()
        raise GitError(
            f"the refs could not be moved, and nothing was changed: {error.message}",
            details=error.details,
            hint="run the command again: what was converted is kept",
        ) from error
    if follows:
        work_tree.finish(workspace, note)


def check_connected(repo: Repository, ids: Iterable[str]) -> None:
    """Raise ``GitError`` where an object in the history of ``ids`` is not here."""
    asked = "".join(f"{id_}\n" for id_ in ids).encode()
    walk = ("rev-list", "--objects", "--quiet", "--stdin", "--not", "--all", "--not")
    repo.git(*walk, stdin=asked)


def _write_map(file: Path, commits: Mapping[str, str]) -> None:
    with atomic_file(file) as output:
        output.writelines(f"{old} {new}\n".encode() for old, new in commits.items())


def _left(repo: Repository, commits: Mapping[str, str]) -> list[str]:
    """Return the branches and tags that still name a commit which has another id now."""
    refs = ref_updates.listed(repo, "refs/heads/", "refs/tags/", "refs/remotes/")
    kinds = repo.peel(refs.values())
    peeled = ((name, kinds[id_][1]) for name, id_ in refs.items() if id_ in kinds)
    names = [name for name, id_ in peeled if commits.get(id_, id_) != id_]
    head = decode(repo.git("rev-parse", "HEAD", check=False)).strip()
    detached = ref_updates.current_branch(repo) is None and commits.get(head, head) != head
    return [*names, *(["HEAD"] if detached else [])]
