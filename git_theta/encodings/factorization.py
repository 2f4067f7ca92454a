"""Find the factors of a change that is of low rank but for the rounding of the sum.

W' = round(W + L R) is known, W' - W = L R + noise, where the noise is at most half the spacing of
floats at W', which differs from element to element by orders of magnitude. A randomised range
finder (Halko, Martinsson, Tropp 2011, with one power iteration) gives factors, and alternating
least squares, weighted by the noise, makes them precise: the elements near zero, rounded to a
finer grid, say most about the factors.

Matrix routines are free to be used: this only chooses what is stored.
"""

from __future__ import annotations

import math

import numpy as np

from git_theta.encodings.change import Change, Indices, noise_scales, spread
from git_theta.encodings.float_formats import Doubles
from git_theta.encodings.rank_detection import Signal, rank_above, rank_limit

_OVERSAMPLING = 8
# Rounds of least squares: the noise assumed beside the rounding, in typical spacings. Falling,
# because with the true (tiny) one from the start the slowly improving factors follow few elements.
# A round at 0.3 before them took as long as each and made objects no smaller (within 1 %).
_FLOORS = (0.05, 0.01)
# Multiplications that the weighted least squares may cost: 1 s for a chunk of 64 MiB at rank 16.
_BUDGET = 5e9
# The sum is computed in float32 by most: relative noise of the change itself.
_SUM_NOISE = 2.0**-24


def factorise(change: Change, signal: Signal) -> tuple[Doubles, Doubles] | None:
    """Factors (rows, r) and (r, columns) of the change in its units, r near the signal's rank.

    ``None`` where the whole matrix turns out not to be of low rank.
    """
    limit = rank_limit(*change.shape)
    found, width = None, signal.rank + _OVERSAMPLING
    # Singular values stand out of the noise by sqrt(size): the whole may show more than a sample.
    while found is None and width <= 2 * limit:
        found, width = _range_finder(change, width, signal.noise), 2 * width
    if found is None:
        return None
    left, right = found
    power = math.sqrt(np.mean(np.square(left @ right[:, :: max(1, right.shape[1] // 64)])))
    if change.shape[0] * change.shape[1] * left.shape[1] ** 2 <= _BUDGET:
        for floor in _FLOORS:
            left, right = _refine(change, right, max(floor, power * _SUM_NOISE))
    return left, right


def _range_finder(change: Change, width: int, noise: float) -> tuple[Doubles, Doubles] | None:
    rows, columns = change.shape
    _, grid = change.at(spread(rows, 64), np.arange(columns))
    across, down = np.empty((rows, 1), change.kind), noise_scales(grid)[1]
    probe = np.random.default_rng(0).standard_normal((columns, width)) / down.T
    probe, seen = probe.astype(change.kind), np.zeros((columns, width))
    for here, difference, block_grid in change.blocks():
        across[here] = noise_scales(block_grid)[0]
        difference /= across[here]
        seen += difference.T @ (difference @ probe)
    basis, _ = np.linalg.qr(seen / down.T)
    probe, image = (basis / down.T).astype(change.kind), np.empty((rows, width))
    for here, difference, _ in change.blocks():
        image[here] = difference / across[here] @ probe
    left, values, right = np.linalg.svd(image, full_matrices=False)
    rank = rank_above(values, change.shape, noise)
    if not 0 < rank < width or rank > rank_limit(rows, columns):
        return None
    return across * (left[:, :rank] * values[:rank]), right[:rank] @ basis.T * down


def _refine(change: Change, right: Doubles, floor: float) -> tuple[Doubles, Doubles]:
    """One round of weighted least squares: the left factor from the right one, then the reverse."""
    rank, columns = right.shape
    left = np.empty((change.shape[0], rank))
    pairs = np.triu_indices(rank)
    gram, moment = np.zeros((columns, pairs[0].size)), np.zeros((columns, rank))
    right = right.astype(change.kind)
    products = (right[pairs[0]] * right[pairs[1]]).T
    for here, difference, grid in change.blocks():
        weights = 1.0 / (np.square(grid) / 12 + floor * floor)
        left[here] = _solve(weights @ products, (weights * difference) @ right.T, pairs)
        found = left[here].astype(change.kind)
        gram += weights.T @ (found[:, pairs[0]] * found[:, pairs[1]])
        moment += (weights * difference).T @ found
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
