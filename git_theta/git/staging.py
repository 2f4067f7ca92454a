"""Putting content into the index that is not what the clean filter would make of a file."""

from __future__ import annotations

from git_theta.git.command import decode, encode
from git_theta.git.repository import Repository


def mode_of(repo: Repository, path: str) -> str | None:
    """The mode that the index has for ``path`` at stage 0, such as ``100644``."""
    line = decode(repo.git("ls-files", "--stage", "-z", "--", f":(literal,top){path}"))
    return line.split(" ", 1)[0] if line else None


def stage(repo: Repository, path: str, content: bytes, mode: str = "100644") -> None:
    """Make ``content`` what the index has for ``path``; ``GitError`` when it is locked."""
    blob = decode(repo.git("hash-object", "-w", "--no-filters", "--stdin", stdin=content)).strip()
    record = f"{mode} {blob} 0\t".encode() + encode(path) + b"\0"
    repo.git("update-index", "-z", "--index-info", stdin=record)
