"""Task2Vec distances: how much alike the tasks of revisions are, by their Fisher information.

Achille and others, 2019 (arXiv:1902.03545), section 3: the symmetric distance of two diagonals F
and G is 1 - cos(F / (F + G), G / (F + G)), divided element by element. So each element counts by
the ratio of F to G there, not by its size. The distance is 0 for tasks that use parameters alike,
and 1 where each uses what the other does not.

The paper averages F over the weights of a filter, and takes it of one probe network for all tasks.
Here every element counts, and each revision's own model is the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from git_theta import transfer
from git_theta.checkpoint.reader import Reader
from git_theta.commands.diff.changes import Tensor, tensors_of
from git_theta.commands.diff.floats import widen
from git_theta.commands.diff.segments import Content
from git_theta.commands.task_vectors import Stretch, aligned, are_comparable, read
from git_theta.core.dtypes import dtype
from git_theta.core.parallel import in_order
from git_theta.errors import UsageError
from git_theta.merge.planning.sources import statistics_of
from git_theta.workspace import Workspace

Doubles = NDArray[np.float64]

# Elements of both that are widened at a time.
_BLOCK = 1 << 15


@dataclass(frozen=True, slots=True)
class _Sums:
    """Inner products of F / (F + G) and G / (F + G), and their squared lengths."""

    products: float = 0.0
    first: float = 0.0
    second: float = 0.0

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.products + other.products, self.first + other.first, self.second + other.second
        )

    @property
    def distance(self) -> float:
        """1 - cosine; NaN where there is nothing to compare."""
        lengths = math.sqrt(self.first) * math.sqrt(self.second)
        if lengths:
            return 1.0 - min(1.0, self.products / lengths)
        return 1.0 if self.first or self.second else math.nan


def distances(
    workspace: Workspace, commits: Sequence[str], paths: Sequence[str], all_pairs: bool
) -> Doubles:
    """Return the distances (n, n) of revisions, NaN where one is not known.

    They are over the Fisher diagonals beside the checkpoints at ``paths``, over the tensors that
    both have. Without ``all_pairs`` only those to the first revision are computed. Objects that are
    needed are fetched. Raises ``UsageError`` where the first has no Fisher diagonals.
    """
    diagonals = [_diagonals(workspace, commit, paths) for commit in commits]
    if not diagonals[0]:
        raise UsageError(
            f"no Fisher diagonals are tracked in {commits[0][:12]} for a Task2Vec distance",
            hint='in Python: git_theta.stats.fisher(model, batches).save("model.safetensors")',
        )
    chunks = {chunk for each in diagonals for tensor in each.values() for chunk in tensor.chunks}
    transfer.fetch(workspace, {ref.oid: ref.size for chunk in chunks for ref in chunk.chain})
    workspace.storage.charge(chunks)
    found = np.full((len(commits), len(commits)), math.nan)
    np.fill_diagonal(found, [0.0 if each else math.nan for each in diagonals])
    content, workers = Reader(workspace.storage), workspace.storage.settings.workers
    for one, other in combinations(range(len(commits)), 2):
        if one == 0 or all_pairs:
            value = _distance(diagonals[one], diagonals[other], content, workers)
            found[one, other] = found[other, one] = value
    return found


def _diagonals(workspace: Workspace, commit: str, paths: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors of all Fisher files of a revision, by checkpoint and name."""
    return {
        f"{path}\0{name}": tensor
        for path in paths
        for fisher in [statistics_of(workspace.repo, commit, path).get("fisher")]
        for name, tensor in tensors_of(fisher).items()
    }


def _distance(
    one: Mapping[str, Tensor], other: Mapping[str, Tensor], content: Content, workers: int
) -> float:
    pairs = [(one[name], other[name]) for name in one if name in other]
    fit = [pair for pair in pairs if are_comparable(pair) and dtype(pair[0].dtype).kind == "float"]
    stretches = (((a.dtype, b.dtype), each) for a, b in fit for each in aligned([a, b]))

    def work(item: tuple[tuple[str, str], Stretch]) -> _Sums:
        return sum(map(_sums, _blocks(*item, content)), _Sums())

    return sum(in_order(work, stretches, workers), _Sums()).distance


def _blocks(
    dtypes: tuple[str, str], stretch: Stretch, content: Content
) -> Iterator[tuple[Doubles, Doubles]]:
    words = [dtype(name).word for name in dtypes]
    data = read(stretch, content)
    for first in range(0, data[0].size // words[0], _BLOCK):
        one, other = (
            widen(each[first * word : (first + _BLOCK) * word], name)
            for each, word, name in zip(data, words, dtypes, strict=True)
        )
        yield one, other


def _sums(block: tuple[Doubles, Doubles]) -> _Sums:
    """Return the sums of elements of which either has any information, and both are finite."""
    with np.errstate(all="ignore"):
        total = block[0] + block[1]
        usable = np.isfinite(total) & (total > 0) & (block[0] >= 0) & (block[1] >= 0)
        first = block[0][usable] / total[usable]
    second = 1.0 - first
    return _Sums(float(first @ second), float(first @ first), float(second @ second))
