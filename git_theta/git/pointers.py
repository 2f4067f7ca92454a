"""Canonical Git LFS pointers, and commits whose tree holds one for each of some objects.

Such a commit follows from its objects alone: no name, no time, no parent. Reading one believes
nothing: a tree that anybody may have pushed counts only if every entry in it is what we would have
written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby

from git_theta.errors import GitError
from git_theta.git.command import decode
from git_theta.git.new_objects import NewObjects
from git_theta.git.raw_objects import TreeEntry, tree_content
from git_theta.git.repository import Repository

# Never the user's name or the time: the commit's id must follow from its content.
_WHO = b"git-theta <git-theta@localhost> 0 +0000"
_MESSAGE = b"Name Git LFS objects"

_TEXT = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n"
    rb"oid sha256:([0-9a-f]{64})\nsize (0|[1-9][0-9]{0,18})\n"
)
_LONGEST = 200
_FOLDER = re.compile(r"040000 tree [0-9a-f]{40,64}\t([0-9a-f]{2})")
_FILE = re.compile(r"100644 blob ([0-9a-f]{40,64})\t([0-9a-f]{2})/(\2[0-9a-f]{62})")


def pointer_text(oid: str, size: int) -> bytes:
    """Return the canonical pointer of an object of ``size`` bytes (git-lfs, docs/spec.md)."""
    version = "version https://git-lfs.github.com/spec/v1"
    return f"{version}\noid sha256:{oid}\nsize {size}\n".encode()


def parse_pointer(text: bytes) -> tuple[str, int] | None:
    """Return oid and size of a canonical pointer; ``None`` for any other text."""
    found = _TEXT.fullmatch(text)
    return (found[1].decode(), int(found[2])) if found else None


def write_commit(
    repo: Repository, objects: Mapping[str, int], env: Mapping[str, str] | None = None
) -> str:
    """Write a commit whose tree has the pointer of each object at ``ab/<oid>``; return its id.

    ``env`` may send what is written to another object directory.
    """
    new = NewObjects(repo, env)
    files = [
        TreeEntry(b"100644", oid.encode(), new.add("blob", pointer_text(oid, objects[oid])))
        for oid in sorted(objects)
    ]
    folders = [
        TreeEntry(b"40000", folder, new.add("tree", tree_content(members)))
        for folder, members in groupby(files, lambda file: file.name[:2])
    ]
    tree = new.add("tree", tree_content(folders)).encode()
    lines = (b"tree " + tree, b"author " + _WHO, b"committer " + _WHO, b"", _MESSAGE)
    commit = new.add("commit", b"\n".join(lines))
    new.write()
    return commit


def read_commit(repo: Repository, commit: str) -> dict[str, int] | None:
    """Return the objects (oid to bytes) that a commit of ours names.

    ``None`` for anything else: one entry that is no canonical pointer under its own name, and
    nothing in the tree counts. Trees are listed level by level, because one that holds itself many
    times over is small to send and endless to list.
    """
    top = _list(repo, commit)
    folders = [match[1] for match in map(_FOLDER.fullmatch, top) if match]
    if not folders or len(folders) != len(top):
        return None
    lines = _list(repo, commit, *(f"{folder}/" for folder in folders))
    files = [match for match in map(_FILE.fullmatch, lines) if match]
    if len(files) != len(lines):
        return None
    return _read_pointers(repo, {match[3]: match[1] for match in files})


def _list(repo: Repository, commit: str, *folders: str) -> list[str]:
    try:
        listed = repo.git("ls-tree", "-z", "--full-tree", commit, "--", *folders)
    except GitError:
        return []
    return decode(listed).split("\0")[:-1]


def _read_pointers(repo: Repository, blobs: Mapping[str, str]) -> dict[str, int] | None:
    found = {}
    for oid, blob in blobs.items():
        pointer = parse_pointer(repo.read_blob(blob, _LONGEST) or b"")
        if pointer is None or pointer[0] != oid:
            return None
        found[oid] = pointer[1]
    return found
