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
from dataclasses import dataclass
from itertools import count

from git_theta.errors import GitError, TransferError
from git_theta.git import pointers
from git_theta.git.pointer_memory import forget, remember, remembered
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
    known = {oid for commit in staying.values() for oid in remembered(repo, commit) or ()}
    fresh = {oid: size for oid, size in wanted.items() if oid not in known}
    ref = _name_on(repo, remote, fresh, there, leaving) if fresh else None
    ours = [commit for commit in staying.values() if remembered(repo, commit) != []]
    _fold_many(repo, remote, len(ours), uses_branches(there), warn)
    return ref


@dataclass(frozen=True, slots=True)
class Draft:
    """Pointers that were written here while their objects were uploaded, and for where.

    ``relied_on`` are the refs of the remote that name further objects: they must still be there.
    """

    ref: str
    commit: str
    objects: Mapping[str, int]
    relied_on: Mapping[str, str]
    ours: int


def prepare(repo: Repository, remote: Remote, objects: Mapping[str, int]) -> Draft | None:
    """Look at what a remote names, and write pointers of those of ``objects`` that it does not.

    ``None`` where that is not enough: nothing is to be pushed, or the remote must be asked once
    more, or does not answer by itself. Nobody is asked for a password while git-lfs may be asking.
    """
    try:
        there = refs_on(repo, remote, silently=True)
    except TransferError:
        return None
    named = {ref: set(remembered(repo, commit) or ()) for ref, commit in there.items()}
    fresh = dict(objects)
    relied_on = {}
    for ref, oids in named.items():
        if found := oids & fresh.keys():
            relied_on[ref] = there[ref]
            fresh = {oid: size for oid, size in fresh.items() if oid not in found}
    # Git collects commits of pointers, which no ref here holds, and pushes none that it has not.
    if not fresh or not all(map(repo.has, relied_on.values())):
        return None
    commit = pointers.write_commit(repo, fresh)
    names = _names(BRANCHES if uses_branches(there) else NAMESPACE, fresh)
    ref = next(name for name in names if there.get(name, commit) == commit)
    ours = sum(remembered(repo, commit) != [] for commit in there.values())
    return Draft(ref, commit, fresh, relied_on, ours)


def publish_draft(repo: Repository, remote: Remote, draft: Draft, warn: Warn) -> bool:
    """Push a draft's pointers, whose objects must be there; return whether the remote took them.

    Refs that are relied on are pushed along as they were seen: git sends nothing for those that are
    unchanged, and fails where one is gone. So the list of refs need not be asked for once more.
    """
    leases = [f"--force-with-lease={ref}:{id_}" for ref, id_ in draft.relied_on.items()]
    unchanged = [f"{id_}:{ref}" for ref, id_ in draft.relied_on.items()]
    try:
        _push(repo, remote, f"{draft.commit}:{draft.ref}", *unchanged, options=leases)
    except GitError:
        return False
    remember(repo, draft.commit, draft.objects)
    _fold_many(repo, remote, draft.ours, draft.ref.startswith(BRANCHES), warn)
    return True


def _fold_many(repo: Repository, remote: Remote, ours: int, are_branches: bool, warn: Warn) -> None:
    """Make ``ours``, so many refs before the last push, one where they are too many."""
    if ours >= (FOLD_BRANCHES_ABOVE if are_branches else FOLD_ABOVE):
        fold(repo, remote, warn)


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
    remember(repo, commit, objects)
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
    _fetch(repo, remote, {r: c for r, c in there.items() if remembered(repo, c) is None})
    return {oid for commit in there.values() for oid in remembered(repo, commit) or ()}


def fold(repo: Repository, remote: Remote, warn: Warn, drop: Collection[str] = ()) -> bool:
    """Make our refs on a remote one, without the objects to ``drop``; say if that was done.

    All at once or not at all, and only if nobody changed them meanwhile: who comes second leaves
    it to the next push. Refs that are not what we write are left alone, and remembered, so that
    they are reported once.
    """
    there = {
        ref: commit
        for ref, commit in refs_on(repo, remote).items()
        if remembered(repo, commit) != []
    }
    try:
        union = _fetch(repo, remote, there)
        foreign = [ref for ref, commit in there.items() if remembered(repo, commit) == []]
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
        remember(repo, commit, kept)
    for old in set(ours.values()) - set(new.values()):
        forget(repo, old)
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
        remember(repo, commit, named)
        found.update(named)
    return found


def refs_on(repo: Repository, remote: Remote, silently: bool = False) -> dict[str, str]:
    """Return the refs on a remote that have a name of ours, and the commit of each.

    ``silently``: fail rather than ask the user for a password.
    """
    try:
        listed = refs_of(repo, remote, *PATTERNS, silently=silently)
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
