"""Pointer refs of a remote that name objects which none of its other refs needs any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from git_theta.errors import TransferError, UsageError
from git_theta.git import Repository, pointer_refs, pointers
from git_theta.git.command import encode
from git_theta.git.remotes import Remote, find_remote, refs_of
from git_theta.transfer import records
from git_theta.transfer.needs import Warn, history_entries, needed_objects, silent
from git_theta.workspace import Workspace

_FETCH = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")


@dataclass(frozen=True, slots=True)
class RemoteGarbage:
    """Objects that a remote names for nothing (oid to bytes), by which refs, of how many in all."""

    remote: str
    objects: dict[str, int]
    refs: tuple[str, ...]
    named: int


def collect(workspace: Workspace, name: str, warn: Warn, *, dry_run: bool = False) -> RemoteGarbage:
    """Remove the pointers of objects that no branch, tag or other ref of a remote needs.

    All of its refs are fetched first; what their history needs stays named. Pointer refs are
    replaced by one, in one push, if nobody has changed them meanwhile. Afterwards branches are
    looked at again: what somebody has pushed meanwhile is named again. No objects are deleted, that
    is for the host. Raises ``UsageError`` in a shallow or partial clone, which does not know what
    history needs, and ``TransferError`` where refs do not come or were changed.
    """
    repo = workspace.repo
    _require_whole(repo)
    remote = find_remote(repo, name)
    # Pointers before branches: a push names its objects first.
    refs = _pointers(repo, remote)
    needed = _needed(repo, remote, warn)
    named = {oid: size for objects in refs.values() for oid, size in objects.items()}
    garbage = {oid: size for oid, size in named.items() if oid not in needed}
    concerned = [ref for ref, names in refs.items() if not garbage.keys().isdisjoint(names)]
    if garbage and not dry_run:
        _remove(repo, remote, garbage, warn)
    return RemoteGarbage(remote.title, garbage, tuple(concerned), len(named))


def _remove(repo: Repository, remote: Remote, garbage: dict[str, int], warn: Warn) -> None:
    if not pointer_refs.fold(repo, remote, warn, drop=garbage):
        raise TransferError(
            f"somebody changed the pointer refs of {remote.title} meanwhile, or they may not be "
            "deleted there",
            hint="run the command again; git ls-remote shows the refs",
        )
    # What is not named may be deleted, so nothing is taken for uploaded any more.
    records.forget(repo, remote, garbage)
    again = _needed(repo, remote, silent)
    if back := {oid: size for oid, size in garbage.items() if oid in again}:
        pointer_refs.publish(repo, remote, back, warn)


def _require_whole(repo: Repository) -> None:
    partial = any(key.endswith(".promisor") for key in repo.config_of("remote"))
    if partial or (repo.common_dir / "shallow").exists():
        raise UsageError(
            "this clone is shallow or partial, so it does not know what history needs",
            hint="git fetch --unshallow; or run it in a whole clone",
        )


def _pointers(repo: Repository, remote: Remote) -> dict[str, dict[str, int]]:
    """Return the pointer refs of a remote, and what each names (oid to bytes)."""
    there = pointer_refs.refs_on(repo, remote)
    _fetch(repo, remote, there)
    found = {ref: pointers.read_commit(repo, commit) for ref, commit in there.items()}
    return {ref: objects for ref, objects in found.items() if objects}


def _needed(repo: Repository, remote: Remote, warn: Warn) -> Collection[str]:
    """Return what the history of each ref of a remote needs, its pointer refs aside."""
    refs = {ref: id_ for ref, id_ in refs_of(repo, remote).items() if not ref.endswith("^{}")}
    _fetch(repo, remote, refs)
    tips = [id_ for ref, id_ in refs.items() if not _names_objects(repo, ref, id_)]
    return needed_objects(repo, history_entries(repo, tips), warn).keys()


def _fetch(repo: Repository, remote: Remote, refs: Mapping[str, str]) -> None:
    """Get what refs point to, where it is not here; ``TransferError`` where they were moved."""
    here = repo.peel(refs.values())
    if wanted := [ref for ref, id_ in refs.items() if id_ not in here]:
        listed = encode("".join(f"{ref}\n" for ref in wanted))
        repo.git(*_FETCH, "--stdin", "--", remote.url, stdin=listed)
        here = repo.peel(refs.values())
    if moved := [ref for ref, id_ in refs.items() if id_ not in here]:
        raise TransferError(
            f"{moved[0]} of {remote.title} was moved meanwhile", hint="run the command again"
        )


def _names_objects(repo: Repository, ref: str, commit: str) -> bool:
    # Anybody may give a branch such a name: it counts like any other unless it is what we write.
    return pointer_refs.is_pointer_ref(ref) and pointers.read_commit(repo, commit) is not None
