"""What git thinks of the files in the work tree."""

from __future__ import annotations

import os
from collections.abc import Iterable

from git_theta.git.repository import Repository


def modified(repo: Repository) -> dict[str, str]:
    """Paths whose file differs from the index, with git's letter: ``M``, ``D``, ``T``, ``U``.

    Git runs the clean filter on those whose size or times changed.
    """
    if repo.work_tree is None:
        return {}
    # Imported here: GitPython costs 0.17 s, which the filter must not pay (decision 0007).
    from git import Repo

    with Repo(repo.work_tree) as opened:
        # Ends with 1 where a file differs, which is no failure.
        opened.git.update_index("-q", "--refresh", with_exceptions=False)
        found = opened.index.diff(None)
    return {change.b_path or change.a_path or "": change.change_type or "M" for change in found}


def refresh(repo: Repository, paths: Iterable[str]) -> None:
    """Let git see that ``paths``, written behind its back, are what the index says.

    Plain ``--refresh`` takes a file whose size changed for modified without reading it; paths
    given one by one are read. Other paths may be in conflict.
    """
    listed = b"".join(os.fsencode(path) + b"\0" for path in paths)
    if listed:
        options = ("-q", "--unmerged", "--refresh", "-z", "--stdin")
        repo.git("update-index", *options, stdin=listed)
