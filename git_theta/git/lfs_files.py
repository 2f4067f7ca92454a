"""Pointers of Git LFS that stand where a file should, and the command that gets the file."""

from __future__ import annotations

import re
import shlex

from git_theta.core.messages import as_typed
from git_theta.git.repository import Repository

PREFIX = b"version https://git-lfs.github.com/spec/"
LONGEST = 1024
"""Bytes, the limit of git-lfs itself (git-lfs, docs/spec.md)."""

_OID = re.compile(rb"^oid sha256:([0-9a-f]{64})\r?$", re.MULTILINE)
_SIZE = re.compile(rb"^size ([0-9]{1,18})\r?$", re.MULTILINE)
_EXTENSION = re.compile(rb"^ext-", re.MULTILINE)

_PLAIN = re.compile(r"[^*?\[\]\\,{}!]+")


def is_pointer(text: bytes | None) -> bool:
    """Return whether this is a pointer, canonical or not, or the beginning of one."""
    return text is not None and text.startswith(PREFIX)


def target_of(text: bytes) -> tuple[str, int] | None:
    """Return oid and size of the object that a pointer names, canonical or not.

    ``None`` where it names none, or where an extension of git-lfs changed the bytes.
    """
    oid, size = _OID.search(text), _SIZE.search(text)
    if not is_pointer(text) or not oid or not size or _EXTENSION.search(text):
        return None
    return oid[1].decode(), int(size[1])


def file_command(repo: Repository, path: str, typed: str | None = None) -> str:
    """Return the command that puts the file in the place of the pointer at ``path``.

    `git lfs pull` does that for what HEAD has, and only where git-lfs is installed for the
    repository or user (git-lfs 3.3); `git lfs smudge` does it always. ``typed`` is the path as it
    is typed in the current folder.
    """
    word = as_typed(typed or path)
    installed = repo.config_value("filter.lfs.process")
    if installed and _PLAIN.fullmatch(path) and is_pointer(repo.read_blob(f"HEAD:{path}", LONGEST)):
        return f"git lfs pull --include {shlex.quote(path)}"
    spare = as_typed(f"{typed or path}.tmp")
    return f"git lfs smudge < {word} > {spare} && mv {spare} {word}"
