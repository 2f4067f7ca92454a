"""Objects named by Git LFS pointers in a ref, for hosts that delete objects which none names.

GitLab keeps an LFS object while a pointer blob anywhere in the object database names it, Gitea
and Forgejo while its canonical pointer blob is in the repository. A manifest is neither. So a push
first pushes a ref ``refs/theta/objects/<id>``, whose tree has a pointer for each new object. Its
name and its commit follow from the pointers alone: who pushes the same objects pushes the same
ref, and others never collide (``docs/decisions/0003-pointer-refs.md``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from git_theta.core.system import atomic_file
from git_theta.errors import GitError, TransferError
from git_theta.git.command import decode
from git_theta.git.repository import Repository

NAMESPACE = "refs/theta/objects/"

FOLD_ABOVE = 32
"""Refs on a remote; when there are more, they become one."""

# Never the user's name or the time: the commit's id must follow from its content.
_WHO = "git-theta <git-theta@localhost> 0 +0000"
_MESSAGE = "Name Git LFS objects"

# Nothing of what a user may have configured for his own pushes.
_PUSH = (
    "push",
    "--quiet",
    "--no-verify",
    "--no-follow-tags",
    "--no-signed",
    "--recurse-submodules=no",
)


def pointer_text(oid: str, size: int) -> bytes:
    """The canonical pointer of an object of ``size`` bytes (git-lfs, docs/spec.md)."""
    version = "version https://git-lfs.github.com/spec/v1"
    return f"{version}\noid sha256:{oid}\nsize {size}\n".encode()


def publish(repo: Repository, remote: str, objects: Mapping[str, int]) -> str | None:
    """Name ``objects`` (oid to bytes) by pointers on a remote; they must be there already.

    Gives the ref that was pushed, ``None`` when the remote names all of them. Raises
    ``TransferError`` when the host refuses.
    """
    there = _remote_refs(repo, remote)
    known = {oid for ref in there for oid in _remembered(repo, ref)}
    fresh = {oid: size for oid, size in objects.items() if oid not in known}
    if not fresh:
        return None
    ref = _ref_name(fresh)
    _put(repo, remote, ref, _commit(repo, ref, fresh))
    _remember(repo, ref, fresh)
    if len(there) >= FOLD_ABOVE:
        fold(repo, remote)
    return ref


def _put(repo: Repository, remote: str, ref: str, commit: str) -> None:
    try:
        _push(repo, remote, f"{commit}:{ref}")
    except GitError:
        # Someone who pushes the same objects at the same time has the ref locked, or was faster.
        try:
            _push(repo, remote, f"{commit}:{ref}")
        except GitError as error:
            if _remote_refs(repo, remote).get(ref) != commit:
                raise _refused(remote, error) from error


def fold(repo: Repository, remote: str) -> bool:
    """Make the refs on a remote one, and say whether that was done.

    All at once or not at all, and only if nobody changed them meanwhile: who comes second leaves
    it to the next push.
    """
    there = _remote_refs(repo, remote)
    try:
        place = _pushed_to(repo, remote)
        repo.git("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", place, *there)
        union = {oid: size for commit in there.values() for oid, size in _named(repo, commit)}
        ref = _ref_name(union)
        commit = _commit(repo, ref, union)
        leases = [f"--force-with-lease={old}:{id_}" for old, id_ in there.items()]
        gone = [f":{old}" for old in there if old != ref]
        _push(repo, remote, f"{commit}:{ref}", *gone, options=["--atomic", *leases])
    except GitError:
        return False
    _remember(repo, ref, union)
    for old in there.keys() - {ref}:
        _memory(repo, old).unlink(missing_ok=True)
    return True


def _remote_refs(repo: Repository, remote: str) -> dict[str, str]:
    try:
        listed = repo.git("ls-remote", "--quiet", _pushed_to(repo, remote), f"{NAMESPACE}*")
    except GitError as error:
        raise _refused(remote, error) from error
    pairs = (line.split("\t") for line in decode(listed).splitlines())
    return {ref: commit for commit, ref in pairs}


def _pushed_to(repo: Repository, remote: str) -> str:
    """Where to read what pushes wrote: a remote may be fetched from another place."""
    if remote not in repo.remotes():
        return remote
    fetch = decode(repo.git("remote", "get-url", remote)).strip()
    push = decode(repo.git("remote", "get-url", "--push", remote)).strip()
    return remote if push == fetch else push


def _push(repo: Repository, remote: str, *refspecs: str, options: Iterable[str] = ()) -> None:
    # A mirror takes no refspecs; this push is not the one that mirrors.
    config = ("-c", f"remote.{remote}.mirror=false") if remote in repo.remotes() else ()
    repo.git(*config, *_PUSH, *options, remote, *refspecs)


def _ref_name(objects: Iterable[str]) -> str:
    digest = hashlib.sha256("".join(f"{oid}\n" for oid in sorted(objects)).encode())
    return NAMESPACE + digest.hexdigest()[:40]


def _commit(repo: Repository, ref: str, objects: Mapping[str, int]) -> str:
    """The id of a commit whose tree has the pointer of each object at ``ab/<oid>``."""
    temporary = ref.replace("objects", "publishing", 1)
    stream = [f"commit {temporary}\ncommitter {_WHO}\ndata {len(_MESSAGE)}\n{_MESSAGE}\n".encode()]
    for oid, size in sorted(objects.items()):
        text = pointer_text(oid, size)
        stream.append(f"M 100644 inline {oid[:2]}/{oid}\ndata {len(text)}\n".encode() + text)
    repo.git("fast-import", "--quiet", "--force", stdin=b"".join(stream))
    commit = decode(repo.git("rev-parse", "--verify", temporary)).strip()
    repo.git("update-ref", "-d", temporary)
    return commit


def _named(repo: Repository, commit: str) -> list[tuple[str, int]]:
    """The objects that a commit of ours has pointers for, with their sizes."""
    pointers = {entry.path.rpartition("/")[2]: entry.blob for entry in repo.tree(commit)}
    sizes = ((oid, repo.read_blob(blob) or b"") for oid, blob in pointers.items())
    return [(oid, int(text.split()[-1])) for oid, text in sizes if text]


# --- memory: which objects a ref names, so that nobody needs to fetch refs that he pushed ---------


def _memory(repo: Repository, ref: str) -> Path:
    return repo.theta_dir / "published" / ref.removeprefix(NAMESPACE)


def _remembered(repo: Repository, ref: str) -> list[str]:
    try:
        return _memory(repo, ref).read_text("ascii").split()
    except (OSError, ValueError):
        return []


def _remember(repo: Repository, ref: str, objects: Iterable[str]) -> None:
    with atomic_file(_memory(repo, ref)) as file:
        file.write("".join(f"{oid}\n" for oid in objects).encode())


def _refused(remote: str, error: GitError) -> TransferError:
    return TransferError(
        f"{remote} does not take the pointers of the uploaded objects: {error.message}",
        details=error.details,
        hint="for a host that keeps objects without pointers: git config theta.pointers false",
    )
