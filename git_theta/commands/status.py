"""How the checkpoints of HEAD, the index and the work tree differ, parameter by parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from git_theta import manifest
from git_theta.errors import ThetaError
from git_theta.git import Entry, worktree
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace

State = Literal["added", "modified", "deleted", "unchanged"]
WorkState = Literal["clean", "modified", "missing", "manifest"]


@dataclass(frozen=True, slots=True)
class Change:
    """One checkpoint: its parameters staged against HEAD, and its file in the work tree.

    ``stored`` is the number of bytes of the frames that the index names and HEAD does not.
    """

    path: str
    staged: State
    work_tree: WorkState
    parameters: int
    changed: int
    added: int
    removed: int
    stored: int
    missing: int


def changes(workspace: Workspace) -> list[Change]:
    """A row for each checkpoint in HEAD or the index, ordered by path."""
    repo = workspace.repo
    head, index = _manifests(workspace, repo.tree("HEAD")), _manifests(workspace, repo.index())
    touched = worktree.modified(repo)
    return [
        _change(path, head.get(path), index.get(path), workspace, touched)
        for path in sorted(head.keys() | index.keys())
    ]


def _manifests(workspace: Workspace, entries: list[Entry]) -> dict[str, Manifest]:
    found = {}
    for entry, text in workspace.repo.manifests(entries):
        try:
            found[entry.path] = manifest.parse(text)
        except ThetaError as error:
            raise error.at(entry.path) from error
    return found


def _change(
    path: str,
    before: Manifest | None,
    after: Manifest | None,
    workspace: Workspace,
    touched: Mapping[str, str],
) -> Change:
    old, new = contents(before), contents(after)
    shared = old.keys() & new.keys()
    here = {chunk.chain[0] for chunk in after.chunks()} if after else set()
    there = set(before.refs()) if before else set()
    return Change(
        path=path,
        staged=_state(before, after),
        work_tree=_work_state(path, workspace, touched),
        parameters=len(new or old),
        changed=sum(old[name] != new[name] for name in shared),
        added=len(new.keys() - shared),
        removed=len(old.keys() - shared),
        stored=sum(ref.length for ref in here - there),
        missing=sum(not workspace.store.has(oid) for oid in after.objects()) if after else 0,
    )


def contents(described: Manifest | None) -> dict[str, tuple[object, ...]]:
    """What a parameter is: equal bytes, dtype and shape decide "unchanged"."""
    if described is None:
        return {}
    return {
        entry.name: (entry.dtype, entry.shape, *(chunk.hash for chunk in entry.chunks))
        for entry in described.tensors
    }


def _state(before: Manifest | None, after: Manifest | None) -> State:
    if before is None or after is None:
        return "added" if before is None else "deleted"
    return "unchanged" if before.hash == after.hash else "modified"


def _work_state(path: str, workspace: Workspace, touched: Mapping[str, str]) -> WorkState:
    file = workspace.repo.work_tree / path if workspace.repo.work_tree else None
    if file is None or touched.get(path) == "D":
        return "missing"
    if file.is_file() and not file.is_symlink():
        with file.open("rb") as reader:
            if manifest.is_manifest(reader.read(16)):
                return "manifest"
    return "modified" if path in touched else "clean"
