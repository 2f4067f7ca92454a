"""Finds the factors of a change that is of low rank but for the rounding of the sum.

W' = round(W + L R) is known, W' - W = L R + noise, where the noise is at most half the spacing of
floats at W', which differs from element to element by orders of magnitude. A sample decides
first; then a randomised range finder (Halko, Martinsson, Tropp 2011, with one power iteration)
gives factors, and alternating least squares, weighted by the noise, makes them precise: the
elements near zero, rounded to a finer grid, say most about the factors.

Matrix routines are free to be used: this only chooses what is stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from git_theta.encodings.difference import Words
from git_theta.encodings.rounding import Doubles, FloatFormat, Floats, spacing, widen

Indices = NDArray[np.intp]

# A square sample of 16 more shows such a rank, and OpenBLAS works on it without its threads, which
# on a busy machine made 3 ms into 300.
MAX_RANK = 80
# Singular values of noise alone reach (sqrt(rows) + sqrt(columns)) * sigma; 0.95 to 1.01 of that
# was measured on merges into real weights.
_MARGIN = 1.25
# Of singular values themselves, relative to the largest.
_PRECISION = 1e-14
_OVERSAMPLING = 8
_BLOCK = 1 << 18
# Below this share of changed elements the sparse encoding is the better one.
_FEW = 0.02
# Of the changed elements of a sample, this share at most may be mispredicted by its factors.
_HELPS = 0.75
# Rounds of least squares: the noise assumed beside the rounding, in typical spacings. Falling,
# because with the true (tiny) one from the start the slowly improving factors follow few elements.
_FLOORS = (0.3, 0.05, 0.01)
# Multiplications that the weighted least squares may cost: 1 s for a chunk of 64 MiB at rank 16.
_BUDGET = 5e9
# The sum is computed in float32 by most: relative noise of the change itself.
_SUM_NOISE = 2.0**-24


class Change:
    """What became of a matrix, in blocks, in units of the typical spacing of its floats."""

    def __init__(self, base: Words, actual: Words, form: FloatFormat) -> None:
        self.shape = actual.shape
        self._base, self._actual, self._form = base, actual, form
        self.unit = 1.0
        _, grid = self.at(*(spread(size, 32) for size in self.shape))
        known = grid[np.isfinite(grid)]
        # A power of two, so that dividing by it is exact.
        self.unit = 2.0 ** round(math.log2(np.median(known))) if known.size else 1.0

    def at(self, rows: Indices, columns: Indices | None = None) -> tuple[Doubles, Doubles]:
        """Differences and spacings; 0 and infinity where there is no finite difference."""
        before, after = (self._values(words, rows, columns) for words in (self._base, self._actual))
        with np.errstate(all="ignore"):
            difference = (after - before) / self.unit
            grid = spacing(after, self._form) / self.unit
        broken = ~np.isfinite(difference)
        if broken.any():
            difference[broken], grid[broken] = 0.0, np.inf
        return difference, grid

    def blocks(self) -> Iterator[tuple[slice, Doubles, Doubles]]:
        """Every row: a slice of them, differences and spacings."""
        rows, columns = self.shape
        step = max(1, _BLOCK // columns)
        for start in range(0, rows, step):
            here = np.arange(start, min(start + step, rows))
            yield slice(start, start + step), *self.at(here)

    def _values(self, words: Words, rows: Indices, columns: Indices | None) -> Doubles:
        chosen = words[rows[0] : rows[-1] + 1] if columns is None else words[np.ix_(rows, columns)]
        return widen(chosen, self._form)


def rank_of_sample(change: Change) -> int:
    """The rank that a sample of the change has; 0 where it is not clearly low.

    A dense change is told by the singular values of a small sample, in 3 ms whatever the size of
    the matrix; what passes is looked at again in a larger one, in 20 ms.
    """
    limit = rank_limit(*change.shape)
    if limit == 0 or not _stands_out(change, limit):
        return 0
    difference, grid = _sample(change, min(2 * limit + 32, 256))
    across, down = _scales(grid)
    left, values, right = np.linalg.svd(difference / across / down, full_matrices=False)
    rank = _above_noise(values, difference.shape)
    if not 0 < rank <= limit:
        return 0
    fitted = (left[:, :rank] * values[:rank]) @ right[:rank] * across * down
    missed = np.count_nonzero(np.abs(difference - fitted) > grid / 2)
    return rank if missed < _HELPS * np.count_nonzero(difference) else 0


def _stands_out(change: Change, limit: int) -> bool:
    """Whether a small sample shows more than noise and less than full rank."""
    difference, grid = _sample(change, limit + 16)
    if np.count_nonzero(difference) < _FEW * difference.size:
        return False
    across, down = _scales(grid)
    values = np.linalg.svd(difference / across / down, compute_uv=False)
    return 0 < _above_noise(values, difference.shape) <= limit


def _sample(change: Change, side: int) -> tuple[Doubles, Doubles]:
    return change.at(*(spread(size, side) for size in change.shape))


def rank_limit(rows: int, columns: int) -> int:
    """The highest rank that is worth storing as factors."""
    return min(MAX_RANK, min(rows, columns) // 4)


def factorise(change: Change, rank: int) -> tuple[Doubles, Doubles] | None:
    """Factors (rows, r) and (r, columns) of the change in its units, r as of now or above.

    ``None`` where the whole matrix turns out not to be of low rank.
    """
    limit = rank_limit(*change.shape)
    found, width = None, rank + _OVERSAMPLING
    # Singular values stand out of the noise by sqrt(size): the whole may show more than a sample.
    while found is None and width <= 2 * limit:
        found, width = _range_finder(change, width), 2 * width
    if found is None:
        return None
    left, right = found
    power = math.sqrt(np.mean(np.square(left @ right[:, :: max(1, right.shape[1] // 64)])))
    if change.shape[0] * change.shape[1] * left.shape[1] ** 2 <= _BUDGET:
        for floor in _FLOORS:
            left, right = _refine(change, right, max(floor, power * _SUM_NOISE))
    return left, right


def _range_finder(change: Change, width: int) -> tuple[Doubles, Doubles] | None:
    rows, columns = change.shape
    _, grid = change.at(spread(rows, 64), np.arange(columns))
    across, down = np.empty((rows, 1)), _scales(grid)[1]
    probe = np.random.default_rng(0).standard_normal((columns, width)) / down.T
    seen = np.zeros((columns, width))
    for here, difference, grid in change.blocks():
        across[here] = _scales(grid)[0]
        difference /= across[here]
        seen += difference.T @ (difference @ probe)
    basis, _ = np.linalg.qr(seen / down.T)
    image = np.empty((rows, width))
    for here, difference, _grid in change.blocks():
        image[here] = difference / across[here] @ (basis / down.T)
    left, values, right = np.linalg.svd(image, full_matrices=False)
    rank = _above_noise(values, change.shape)
    if not 0 < rank < width or rank > rank_limit(rows, columns):
        return None
    return across * (left[:, :rank] * values[:rank]), right[:rank] @ basis.T * down


def _refine(change: Change, right: Doubles, floor: float) -> tuple[Doubles, Doubles]:
    """One round of weighted least squares: the left factor from the right one, then the reverse."""
    rank, columns = right.shape
    left = np.empty((change.shape[0], rank))
    pairs = np.triu_indices(rank)
    gram, moment = np.zeros((columns, pairs[0].size)), np.zeros((columns, rank))
    products = (right[pairs[0]] * right[pairs[1]]).T
    for here, difference, grid in change.blocks():
        weights = 1.0 / (np.square(grid) / 12 + floor * floor)
        left[here] = _solve(weights @ products, (weights * difference) @ right.T, pairs)
        gram += weights.T @ (left[here][:, pairs[0]] * left[here][:, pairs[1]])
        moment += (weights * difference).T @ left[here]
    return left, _solve(gram, moment, pairs).T


def _solve(gram: Doubles, moment: Doubles, pairs: tuple[Indices, ...]) -> Doubles:
    """Solutions of one small symmetric system per row; ``gram`` holds upper triangles."""
    rank = moment.shape[1]
    full = np.empty((moment.shape[0], rank, rank))
    full[:, pairs[0], pairs[1]] = full[:, pairs[1], pairs[0]] = gram
    trace = np.trace(full, axis1=1, axis2=2)
    # Rows without information (all zero, all NaN) still need a regular system.
    ridge = 1e-13 * (trace + trace.mean()) + 1e-290
    full[:, np.arange(rank), np.arange(rank)] += ridge[:, None]
    return np.asarray(np.linalg.solve(full, moment[..., None])[..., 0], np.float64)


def spread(size: int, count: int) -> Indices:
    """``count`` indices (or all) spread over ``size``, a little irregularly, always the same."""
    if count >= size:
        return np.arange(size)
    edges = np.linspace(0, size, count + 1).astype(np.intp)
    jitter = np.random.default_rng(0).random(count)
    return edges[:-1] + (jitter * np.diff(edges)).astype(np.intp)


def _scales(grid: Doubles) -> tuple[Doubles, Doubles]:
    """Factors per row (rows, 1) and column (1, columns) that make the noise about even."""
    finite = np.where(np.isfinite(grid), grid, 0.0)
    across = np.sqrt(np.mean(np.square(finite), axis=1, keepdims=True))
    across[across == 0] = 1.0
    down = np.sqrt(np.mean(np.square(finite / across), axis=0, keepdims=True))
    down[down == 0] = 1.0
    return across, down


def _above_noise(values: Floats, shape: tuple[int, ...]) -> int:
    """How many singular values of an evenly scaled change are more than rounding noise."""
    noise = _MARGIN * sum(map(math.sqrt, shape)) / math.sqrt(12)
    return int(np.count_nonzero(values > max(noise, _PRECISION * values[0])))
