"""What git thinks of the files in the work tree."""

from __future__ import annotations

import os
from collections.abc import Iterable

from git_theta.git.command import decode
from git_theta.git.repository import Repository


def modified(repo: Repository) -> dict[str, str]:
    """Paths whose file differs from the index, with git's letter: ``M``, ``D``, ``T``, ``U``.

    Git runs the clean filter on those whose size or times changed.
    """
    if repo.work_tree is None:
        return {}
    repo.git("update-index", "-q", "--refresh", check=False)  # fails where something differs
    fields = decode(repo.git("diff-files", "--name-status", "-z")).split("\0")
    return dict(zip(fields[1::2], fields[0::2], strict=False))


def refresh(repo: Repository, paths: Iterable[str]) -> None:
    """Let git see that ``paths``, written behind its back, are what the index says.

    Plain ``--refresh`` takes a file whose size changed for modified without reading it; paths
    given one by one are read.
    """
    listed = b"".join(os.fsencode(path) + b"\0" for path in paths)
    if listed:
        repo.git("update-index", "-q", "--refresh", "-z", "--stdin", stdin=listed)
