"""What each parent of a merge contributed to the tensors that the merge made.

The merge's task vector (its difference to the common ancestor) is written as a sum of the parents'
task vectors, by least squares: an average of two gives 0.5 and 0.5, task arithmetic its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from git_theta import transfer
from git_theta.checkpoint.reader import Reader
from git_theta.commands.blame import Blame, History
from git_theta.commands.diff.changes import Tensor, tensors_of
from git_theta.commands.task_vectors import are_comparable, gram
from git_theta.git.merge_heads import merge_bases
from git_theta.workspace import Workspace

_Versions = list[list[Tensor]]


def with_shares(workspace: Workspace, rows: Sequence[Blame]) -> list[Blame]:
    """Return the rows with the shares of each merge's parents; objects are fetched if need be.

    A row has none where its commit is no merge, or a tensor is not in the common ancestor (of
    several, the first) and in every parent, of one shape.
    """
    history = History(workspace.repo)
    return [replace(row, shares=_shares(workspace, history, row)) for row in rows]


def _shares(workspace: Workspace, history: History, row: Blame) -> tuple[float, ...] | None:
    parents = row.commit.parents
    bases = merge_bases(workspace.repo, parents) if len(parents) > 1 else []
    found = _versions(history, row, bases[0]) if bases else None
    if found is None:
        return None
    chunks = [chunk for group in found for tensor in group for chunk in tensor.chunks]
    transfer.fetch(workspace, {ref.oid: ref.size for chunk in chunks for ref in chunk.chain})
    workspace.storage.charge(chunks)
    content = Reader(workspace.storage)
    total = sum((gram(base, others, content) for base, *others in found), np.zeros(()))
    return tuple(map(float, _coefficients(total)))


def _versions(history: History, row: Blame, base: str) -> _Versions | None:
    """Return each tensor in the base, the parents and the merge, in this order."""
    merge = row.commit.commit
    commits = (base, *row.commit.parents)
    paths = [history.path_before(commit, merge, row.path) for commit in commits]
    places = [*zip(commits, paths, strict=True), (merge, row.path)]
    sides = [tensors_of(history.manifest(*place)) for place in places]
    if not all(name in side for name in row.names for side in sides):
        return None
    found = [[side[name] for side in sides] for name in row.names]
    return found if all(map(are_comparable, found)) else None


def _coefficients(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of parents that is nearest to the merge, from all inner products.

    Of several that are equally near, the one of least coefficients: a parent that changed nothing
    has 0.
    """
    parents, merge = products[:-1, :-1], products[:-1, -1]
    # Changes of very different size must not make a parent look like nothing.
    lengths = np.sqrt(np.diag(parents))
    scale = np.where(lengths > 0, lengths, 1.0)
    found = np.linalg.lstsq(parents / np.outer(scale, scale), merge / scale, rcond=1e-10)[0]
    return np.asarray(found / scale)
