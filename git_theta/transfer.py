"""Objects to and from remotes, all through Git LFS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from git_theta import manifest
from git_theta.errors import MissingObjectError, ThetaError, TransferError
from git_theta.git import Entry, Repository, pointers
from git_theta.git.lfs import Lfs
from git_theta.workspace import Workspace

_NO_COMMIT = "0" * 40


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """A line of the pre-push hook: what a ref is here, and what it is on the remote."""

    local_ref: str
    local: str
    remote_ref: str
    remote: str


def parse_updates(lines: str) -> list[RefUpdate]:
    """The pre-push hook's standard input (githooks(5))."""
    return [RefUpdate(*line.split(" ")) for line in lines.splitlines() if line.count(" ") == 3]


def fetch(workspace: Workspace, objects: Mapping[str, int]) -> None:
    """Download those of ``objects`` (oid to bytes) that are not here, each remote once.

    Raises ``MissingObjectError`` when some are on no remote.
    """
    missing = _absent(workspace, objects)
    problem: ThetaError | None = None

    def deliver(oid: str, file: Path) -> None:
        workspace.store.adopt(oid, objects[oid], file)

    for remote in workspace.repo.remotes() if missing else ():
        try:
            Lfs(workspace.repo).download(missing, remote, deliver, workspace.storage.progress)
        except TransferError as error:
            problem = error
        missing = _absent(workspace, missing)
        if not missing:
            return
    if missing:
        raise _missing(missing, problem)


def _absent(workspace: Workspace, objects: Mapping[str, int]) -> dict[str, int]:
    return {oid: size for oid, size in objects.items() if not workspace.store.has(oid)}


def _missing(missing: Mapping[str, int], problem: ThetaError | None) -> MissingObjectError:
    some = ", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else "")
    because = f" ({problem.message})" if problem else ""
    return MissingObjectError(
        f"{len(missing)} objects are neither here nor on a remote: {some}{because}",
        hint="git theta fetch from a remote that has them, or push them from where they are",
    )


def push(workspace: Workspace, remote: str, updates: Sequence[RefUpdate]) -> int:
    """Put every object that the pushed commits need on ``remote``; gives their number.

    What they need is computed from the manifests in the pushed range, so it does not matter how
    the commits were made. Raises ``TransferError`` or ``MissingObjectError``: the push must then
    not go on.
    """
    repo = workspace.repo
    tips = [update.local for update in updates if update.local != _NO_COMMIT]
    if not tips:
        return 0
    known = [f"--remotes={remote}"] if remote in repo.remotes() else []
    known += [u.remote for u in updates if u.remote != _NO_COMMIT and repo.resolve(u.remote)]
    needed = needed_objects(repo, repo.range_entries(tips, known))
    if not needed:
        return 0
    _account_for(workspace, remote, _absent(workspace, needed))
    here = {oid: workspace.store.path(oid) for oid in needed if workspace.store.has(oid)}
    Lfs(repo).upload(remote, here, workspace.storage.progress)
    if workspace.storage.settings.pointers:
        pointers.publish(repo, remote, needed)
    return len(here)


def needed_objects(repo: Repository, entries: Iterable[Entry]) -> dict[str, int]:
    """Every object that the manifests among ``entries`` name: oid to bytes."""
    needed: dict[str, int] = {}
    for entry, text in repo.manifests(entries):
        try:
            needed.update(manifest.parse(text).objects())
        except ThetaError as error:
            raise error.at(entry.path) from error
    return needed


def _account_for(workspace: Workspace, remote: str, absent: Mapping[str, int]) -> None:
    """Objects that are not here must be on the remote already, or come from another one."""
    if not absent:
        return
    repo = workspace.repo
    there = needed_objects(repo, repo.range_entries([f"--remotes={remote}"], []))
    fetch(workspace, {oid: size for oid, size in absent.items() if oid not in there})
