"""Objects named by Git LFS pointers in refs, for hosts that delete objects which none names.

GitLab keeps an LFS object while a pointer blob anywhere in the object database names it, Gitea
and Forgejo while its canonical pointer blob is in the repository. A manifest is neither. So a push
first pushes a ref ``refs/theta/objects/<id>``, whose tree has a pointer for each new object. Its
commit follows from the pointers alone: who pushes the same objects pushes the same commit, and
others never collide (``docs/decisions/0003-pointer-refs.md``).

A host that takes only branches and tags gets branches ``git-theta/objects/<id>`` instead
(``docs/decisions/0024-pointer-branches.md``). Its list of refs says which it takes, to every clone.

Whoever may push to the remote may put anything below that name. Refs of another form are not looked
at; those of our form count only if ``pointers.read_commit`` says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import count
from pathlib import Path

from git_theta.core.files import atomic_file
from git_theta.errors import GitError, TransferError
from git_theta.git import pointers
from git_theta.git.ref_failures import RejectedRefError, failure, is_rejected
from git_theta.git.remotes import Remote, refs_of
from git_theta.git.repository import Repository

NAMESPACE = "refs/theta/objects/"
BRANCHES = "refs/heads/git-theta/objects/"
PATTERNS = (f"{NAMESPACE}*", f"{BRANCHES}*")

FOLD_ABOVE = 32
"""Refs on a remote; when there are more, they become one."""
FOLD_BRANCHES_ABOVE = 4
"""The same for branches, which people see and clones fetch."""

_NAME = re.compile(f"({re.escape(NAMESPACE)}|{re.escape(BRANCHES)})[0-9a-f]{{40}}")

# Nothing of what a user may have configured for his own pushes.
_PUSH = (
    "push",
    "--quiet",
    "--no-verify",
    "--no-follow-tags",
    "--no-signed",
    "--recurse-submodules=no",
)

Warn = Callable[[str], None]


def is_pointer_ref(ref: str) -> bool:
    """Return whether a ref has a name of ours."""
    return _NAME.fullmatch(ref) is not None


def publish(
    repo: Repository,
    remote: Remote,
    objects: Mapping[str, int],
    warn: Warn,
    leaving: Collection[str] = (),
) -> str | None:
    """Name ``objects`` (oid to bytes) by pointers on a remote; they must be there already.

    ``leaving`` are refs that the push under way deletes, as `git push --mirror` does: what they
    name is named again by a ref that stays. Returns the ref that was pushed, ``None`` when the
    remote names all of them. Raises ``TransferError`` when the host refuses.
    """
    there = refs_on(repo, remote)
    staying = {ref: commit for ref, commit in there.items() if ref not in leaving}
    going = {ref: commit for ref, commit in there.items() if ref in leaving}
    wanted = {**_fetch(repo, remote, going), **objects}
    known = {oid for commit in staying.values() for oid in _remembered(repo, commit) or ()}
    fresh = {oid: size for oid, size in wanted.items() if oid not in known}
    ref = _name_on(repo, remote, fresh, there, leaving) if fresh else None
    ours = [commit for commit in staying.values() if _remembered(repo, commit) != []]
    if len(ours) >= (FOLD_BRANCHES_ABOVE if uses_branches(there) else FOLD_ABOVE):
        fold(repo, remote, warn)
    return ref


def uses_branches(there: Iterable[str]) -> bool:
    """Return whether the pointer refs ``there``, of one remote, say that it takes branches only."""
    refs = [ref for ref in there if is_pointer_ref(ref)]
    return bool(refs) and all(ref.startswith(BRANCHES) for ref in refs)


def _name_on(
    repo: Repository,
    remote: Remote,
    objects: Mapping[str, int],
    there: Mapping[str, str],
    leaving: Collection[str],
) -> str:
    commit = pointers.write_commit(repo, objects)

    def put(namespace: str) -> str:
        names = (name for name in _names(namespace, objects) if name not in leaving)
        ref = next(name for name in names if there.get(name, commit) == commit)
        _put(repo, remote, ref, commit)
        return ref

    if uses_branches(there):
        ref = put(BRANCHES)
    else:
        try:
            ref = put(NAMESPACE)
        except RejectedRefError as error:
            try:
                ref = put(BRANCHES)
            except TransferError:
                raise error from None
    _remember(repo, commit, objects)
    return ref


def _put(repo: Repository, remote: Remote, ref: str, commit: str) -> None:
    try:
        _push(repo, remote, f"{commit}:{ref}")
    except GitError as error:
        if is_rejected(error):
            raise failure(remote, ref, error) from error
        # Someone who pushes the same objects at the same time has the ref locked, or was faster.
        try:
            _push(repo, remote, f"{commit}:{ref}")
        except GitError as again:
            if refs_on(repo, remote).get(ref) != commit:
                raise failure(remote, ref, again) from again


def named_on(repo: Repository, remote: Remote, there: Mapping[str, str]) -> set[str]:
    """Return the objects that the refs ``there`` name; those not known here are fetched."""
    _fetch(repo, remote, {r: c for r, c in there.items() if _remembered(repo, c) is None})
    return {oid for commit in there.values() for oid in _remembered(repo, commit) or ()}


def fold(repo: Repository, remote: Remote, warn: Warn, drop: Collection[str] = ()) -> bool:
    """Make our refs on a remote one, without the objects to ``drop``; say if that was done.

    All at once or not at all, and only if nobody changed them meanwhile: who comes second leaves
    it to the next push. Refs that are not what we write are left alone, and remembered, so that
    they are reported once.
    """
    there = {
        ref: commit
        for ref, commit in refs_on(repo, remote).items()
        if _remembered(repo, commit) != []
    }
    try:
        union = _fetch(repo, remote, there)
        foreign = [ref for ref, commit in there.items() if _remembered(repo, commit) == []]
        if foreign:
            warn(f"{remote.title} has refs that git-theta did not write, ignored: {_some(foreign)}")
        ours = {ref: commit for ref, commit in there.items() if ref not in foreign}
        if not union:
            return False
        kept = {oid: size for oid, size in union.items() if oid not in drop}
        new = {}
        if kept:
            commit = pointers.write_commit(repo, kept)
            names = _names(BRANCHES if uses_branches(there) else NAMESPACE, kept)
            new[next(name for name in names if there.get(name, commit) == commit)] = commit
        leases = [f"--force-with-lease={old}:{id_}" for old, id_ in ours.items()]
        refspecs = [f"{commit}:{ref}" for ref, commit in new.items()]
        gone = [f":{old}" for old in ours if old not in new]
        _push(repo, remote, *refspecs, *gone, options=["--atomic", *leases])
    except GitError:
        return False
    for commit in new.values():
        _remember(repo, commit, kept)
    for old in set(ours.values()) - set(new.values()):
        _memory(repo, old).unlink(missing_ok=True)
    return True


def _some(refs: list[str]) -> str:
    return ", ".join(sorted(refs)[:3]) + (f" and {len(refs) - 3} more" if len(refs) > 3 else "")


def _fetch(repo: Repository, remote: Remote, refs: Mapping[str, str]) -> dict[str, int]:
    """Return what refs on a remote name, and remember it; ``GitError`` when they do not come."""
    if not refs:
        return {}
    silent = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
    repo.git("fetch", *silent, "--", remote.url, *refs)
    found: dict[str, int] = {}
    for commit in refs.values():
        named = pointers.read_commit(repo, commit) or {}
        _remember(repo, commit, named)
        found.update(named)
    return found


def refs_on(repo: Repository, remote: Remote) -> dict[str, str]:
    """Return the refs on a remote that have a name of ours, and the commit of each."""
    try:
        listed = refs_of(repo, remote, *PATTERNS)
    except TransferError as error:
        what = f"{remote.title} does not say which objects it has pointers of: {error.message}"
        raise TransferError(what, details=error.details, hint=error.hint) from error
    return {ref: commit for ref, commit in listed.items() if is_pointer_ref(ref)}


def _push(repo: Repository, remote: Remote, *refspecs: str, options: Iterable[str] = ()) -> None:
    # A mirror takes no refspecs; this push is not the one that mirrors.
    config = ("-c", f"remote.{remote.spec}.mirror=false") if remote.spec != remote.url else ()
    repo.git(*config, *_PUSH, *options, "--", remote.spec, *refspecs)


def _names(namespace: str, objects: Iterable[str]) -> Iterable[str]:
    """Return the names that a ref for ``objects`` may have, the usual one first.

    The others are for a name that somebody took for something else, or that is about to be deleted.
    """
    listed = "".join(f"{oid}\n" for oid in sorted(objects))
    for number in count():
        digest = hashlib.sha256((listed + "\n" * number).encode())
        yield namespace + digest.hexdigest()[:40]


# --- memory: what a commit names, so that nobody needs to fetch refs that he pushed --------------


def _memory(repo: Repository, commit: str) -> Path:
    return repo.theta_dir / "published" / commit


def _remembered(repo: Repository, commit: str) -> list[str] | None:
    """Return the oids that a commit names: none if not ours, ``None`` if that is not known."""
    try:
        return _memory(repo, commit).read_text("ascii").split()
    except (OSError, ValueError):
        return None


def _remember(repo: Repository, commit: str, objects: Iterable[str]) -> None:
    with atomic_file(_memory(repo, commit)) as file:
        file.write("".join(f"{oid}\n" for oid in objects).encode())
