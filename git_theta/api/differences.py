"""What changed between two versions of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from git_theta.api.checkpoint import StrPath
from git_theta.commands.diff import CheckpointDiff, Order, diff_of, in_repository
from git_theta.errors import UsageError
from git_theta.git import Repository, revisions
from git_theta.workspace import open_workspace

__all__ = ["CheckpointDiff", "diff"]

_VERSIONS = 'A is a revision or "" (the index), B a revision, "" or None (the work tree)'


def diff(
    a: str = "HEAD",
    b: str | None = None,
    path: StrPath | None = None,
    repo: StrPath = ".",
    *,
    by_tensor: bool = False,
    values: bool = True,
    order: Order = "name",
) -> list[CheckpointDiff]:
    """Return what changed from ``a`` to ``b`` in each checkpoint, as `git theta diff` prints it.

    ``a`` and ``b`` are revisions, ``""`` for the index, and ``b`` may be ``None``: the work tree.
    ``path`` (relative to the folder ``repo``; a pathspec) limits it to files. Tensors with the same
    name in all layers that changed in the same way share a row; with ``by_tensor`` each has its
    own, with the rank of its change. Only tensors that changed are decoded, and fetched if
    necessary; without ``values`` none are, and rows have no figures.

    Raises ``NotARepositoryError``, ``UsageError`` for a revision that does not exist, and the
    errors of reading tensors.
    """
    paths = [] if path is None else [os.fspath(path)]
    with open_workspace(Path(repo)) as workspace:
        commits, staged = _ends(workspace.repo, a, b)
        workers = workspace.storage.settings.workers
        with in_repository(workspace, commits, paths, staged) as pairs:
            return [
                diff_of(pair, workers, workspace, by_tensor=by_tensor, values=values, order=order)
                for pair in pairs
            ]


def _ends(repo: Repository, a: str, b: str | None) -> tuple[Sequence[str], bool]:
    """Return the commits to compare, and whether the last one is compared with the index."""
    if a == "":
        if b is not None:
            raise UsageError("the index can only be compared with the work tree", hint=_VERSIONS)
        return [], False
    first = revisions.commit_of(repo, a)
    return ([first, revisions.commit_of(repo, b)] if b else [first]), b == ""
