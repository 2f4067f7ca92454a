"""Two factors whose product is nearest to a matrix, at a given rank or share of its energy.

Large matrices by a randomised range finder with power iterations (Halko, Martinsson and Tropp,
2011), which reads the matrix six times for each rank that is tried, and makes no copy of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

# Up to this many rows or columns numpy's own decomposition is as fast.
_SMALL = 384
_FIRST = 32
_MORE = 8
_POWERS = 2


def truncated(
    matrix: Floats, rank: int | None = None, energy: float = 1.0
) -> tuple[Floats, Floats]:
    """Return factors ``up`` (rows, r) and ``down`` (r, columns) of a matrix.

    ``r`` is ``rank``, or, without it, the least whose squared singular values are ``energy`` of
    their sum. Both factors get the square roots of the singular values. The same matrix gives the
    same factors, but for the rounding of the matrix routine.
    """
    wanted = min(matrix.shape) if rank is None else min(rank, *matrix.shape)
    total = float(np.sum(np.square(matrix, dtype=np.float64)))
    tried = min(wanted, _FIRST if rank is None else wanted)
    while True:
        left, values, right = leading(matrix, tried)
        captured = np.cumsum(np.square(values, dtype=np.float64))
        if rank is not None or tried == wanted or captured[-1] >= energy * total:
            break
        tried = min(2 * tried, wanted)
    kept = len(values)
    if rank is None:
        kept = 1 + int(np.searchsorted(captured[:-1], energy * total))
    roots = np.sqrt(values[:kept])
    return left[:, :kept] * roots, roots[:, None] * right[:kept]


def leading(matrix: Floats, count: int) -> tuple[Floats, Floats, Floats]:
    """Return the first ``count`` left singular vectors, values, and right vectors as rows."""
    width = count + _MORE
    if min(matrix.shape) <= max(_SMALL, width):
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        return left[:, :count], values[:count], right[:count]
    random = np.random.default_rng(0).standard_normal((matrix.shape[1], width), np.float32)
    basis, _ = np.linalg.qr(matrix @ random.astype(matrix.dtype))
    for _ in range(_POWERS):
        across, _ = np.linalg.qr(matrix.T @ basis)
        basis, _ = np.linalg.qr(matrix @ across)
    left, values, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    return (basis @ left)[:, :count], values[:count], right[:count]
