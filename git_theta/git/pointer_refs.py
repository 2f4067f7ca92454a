"""Objects named by Git LFS pointers in refs, for hosts that delete objects which none names.

GitLab keeps an LFS object while a pointer blob anywhere in the object database names it, Gitea
and Forgejo while its canonical pointer blob is in the repository. A manifest is neither. So a push
first pushes a ref ``refs/theta/objects/<id>``, whose tree has a pointer for each new object. Its
commit follows from the pointers alone: who pushes the same objects pushes the same commit, and
others never collide (``docs/decisions/0003-pointer-refs.md``).

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
from git_theta.git.remotes import Remote, refs_of
from git_theta.git.repository import Repository

NAMESPACE = "refs/theta/objects/"

FOLD_ABOVE = 32
"""Refs on a remote; when there are more, they become one."""

_NAME = re.compile(re.escape(NAMESPACE) + "[0-9a-f]{40}")

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
    there = _refs(repo, remote)
    staying = {ref: commit for ref, commit in there.items() if ref not in leaving}
    going = {ref: commit for ref, commit in there.items() if ref in leaving}
    wanted = {**_fetch(repo, remote, going), **objects}
    known = {oid for commit in staying.values() for oid in _remembered(repo, commit) or ()}
    fresh = {oid: size for oid, size in wanted.items() if oid not in known}
    ref = _name_on(repo, remote, fresh, there, leaving) if fresh else None
    ours = [commit for commit in staying.values() if _remembered(repo, commit) != []]
    if len(ours) >= FOLD_ABOVE:
        fold(repo, remote, warn)
    return ref


def _name_on(
    repo: Repository,
    remote: Remote,
    objects: Mapping[str, int],
    there: Mapping[str, str],
    leaving: Collection[str],
) -> str:
    commit = pointers.write_commit(repo, objects)
    ref = next(
        name
        for name in _names(objects)
        if name not in leaving and there.get(name, commit) == commit
    )
    _put(repo, remote, ref, commit)
    _remember(repo, commit, objects)
    return ref


def _put(repo: Repository, remote: Remote, ref: str, commit: str) -> None:
    try:
        _push(repo, remote, f"{commit}:{ref}")
    except GitError:
        # Someone who pushes the same objects at the same time has the ref locked, or was faster.
        try:
            _push(repo, remote, f"{commit}:{ref}")
        except GitError as error:
            if _refs(repo, remote).get(ref) != commit:
                raise _refused(remote, error) from error


def fold(repo: Repository, remote: Remote, warn: Warn) -> bool:
    """Make our refs on a remote one, and return whether that was done.

    All at once or not at all, and only if nobody changed them meanwhile: who comes second leaves
    it to the next push. Refs that are not what we write are left alone, and remembered, so that
    they are reported once.
    """
    there = {
        ref: commit
        for ref, commit in _refs(repo, remote).items()
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
        commit = pointers.write_commit(repo, union)
        ref = next(name for name in _names(union) if there.get(name, commit) == commit)
        leases = [f"--force-with-lease={old}:{id_}" for old, id_ in ours.items()]
        gone = [f":{old}" for old in ours if old != ref]
        _push(repo, remote, f"{commit}:{ref}", *gone, options=["--atomic", *leases])
    except GitError:
        return False
    _remember(repo, commit, union)
    for old in set(ours.values()) - {commit}:
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


def _refs(repo: Repository, remote: Remote) -> dict[str, str]:
    try:
        listed = refs_of(repo, remote, f"{NAMESPACE}*")
    except TransferError as error:
        raise _refused(remote, error) from error
    return {ref: commit for ref, commit in listed.items() if is_pointer_ref(ref)}


def _push(repo: Repository, remote: Remote, *refspecs: str, options: Iterable[str] = ()) -> None:
    # A mirror takes no refspecs; this push is not the one that mirrors.
    config = ("-c", f"remote.{remote.spec}.mirror=false") if remote.spec != remote.url else ()
    repo.git(*config, *_PUSH, *options, "--", remote.spec, *refspecs)


def _names(objects: Iterable[str]) -> Iterable[str]:
    """Return the names that a ref for ``objects`` may have, the usual one first.

    The others are for a name that somebody took for something else, or that is about to be deleted.
    """
    listed = "".join(f"{oid}\n" for oid in sorted(objects))
    for number in count():
        digest = hashlib.sha256((listed + "\n" * number).encode())
        yield NAMESPACE + digest.hexdigest()[:40]


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


def _refused(remote: Remote, error: GitError | TransferError) -> TransferError:
    return TransferError(
        f"{remote.title} does not take the pointers of the uploaded objects: {error.message}",
        details=error.details,
        hint="for a host that keeps objects without pointers: git config theta.pointers false",
    )
