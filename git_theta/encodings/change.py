"""What became of a matrix of floats, and how coarsely it was rounded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from git_theta.core.kernels import look_up
from git_theta.encodings.float_formats import (
    Doubles,
    FloatFormat,
    Floats,
    exponents,
    spacings_of,
    widen,
    widen_single,
)
from git_theta.encodings.zigzag import Words

Indices = NDArray[np.intp]

_BLOCK = 1 << 18


class Change:
    """What became of a matrix, in blocks, in units of the typical spacing of its floats."""

    def __init__(self, base: Words, actual: Words, form: FloatFormat) -> None:
        self.shape = actual.shape
        self._base, self._actual, self._form = base, actual, form
        self.unit, self.kind = 1.0, np.dtype(np.float32 if form.word == 2 else np.float64)
        _, grid = self.at(*(spread(size, 32) for size in self.shape))
        known = grid[np.isfinite(grid)]
        # A power of two, so that dividing by it is exact.
        self.unit = 2.0 ** round(math.log2(_median(known))) if known.size else 1.0

    def at(self, rows: Indices, columns: Indices) -> tuple[Doubles, Doubles]:
        """Differences and spacings; 0 and infinity where there is no finite difference."""
        chosen = np.ix_(rows, columns)
        base, actual = self._base[chosen], self._actual[chosen]
        return self._measured(widen(base, self._form), widen(actual, self._form), actual)  # type: ignore[return-value]

    def blocks(self) -> Iterator[tuple[slice, Floats, Floats]]:
        """Yield every row: a slice of them, differences and spacings.

        As ``kind``, float32 for 16-bit floats, whose differences have no more digits: all that is
        done with them takes half the time.
        """
        rows, columns = self.shape
        step = max(1, _BLOCK // columns)
        values = widen_single if self.kind == np.float32 else widen
        for start in range(0, rows, step):
            here = slice(start, start + step)
            base, actual = self._base[here], self._actual[here]
            measured = self._measured(values(base, self._form), values(actual, self._form), actual)
            yield here, *measured

    def _measured(self, before: Floats, after: Floats, actual: Words) -> tuple[Floats, Floats]:
        with np.errstate(all="ignore"):
            difference: Floats = (after - before) / self.unit
            spacings = (spacings_of(self._form) / self.unit).astype(after.dtype)
        grid: Floats = look_up(spacings, exponents(actual, self._form))
        broken = ~np.isfinite(difference)
        if broken.any():
            difference[broken], grid[broken] = 0.0, np.inf
        return difference, grid


def _median(values: Doubles) -> float:
    """Return the median; numpy's takes 15 ms to import ``numpy.ma``."""
    middle = [(values.size - 1) // 2, values.size // 2]
    return float(np.partition(values, middle)[middle].mean())


@lru_cache(maxsize=256)  # A tensor's samples take six, 0.1 ms each; other tensors take the same.
def spread(size: int, count: int) -> Indices:
    """``count`` indices (or all) spread over ``size``, a little irregularly, always the same."""
    indices = np.arange(size)
    if count < size:
        edges = np.linspace(0, size, count + 1).astype(np.intp)
        # Multiples of the golden ratio: numpy.random takes 20 ms to import.
        jitter = np.arange(1, count + 1) * 0.6180339887498949 % 1
        indices = edges[:-1] + (jitter * np.diff(edges)).astype(np.intp)
    indices.flags.writeable = False
    return indices


def noise_scales(grid: Floats) -> tuple[Floats, Floats]:
    """Factors per row (rows, 1) and column (1, columns) that make the noise about even."""
    finite = np.where(np.isfinite(grid), grid, 0.0)
    across = np.sqrt(np.mean(np.square(finite), axis=1, keepdims=True))
    across[across == 0] = 1.0
    down = np.sqrt(np.mean(np.square(finite / across), axis=0, keepdims=True))
    down[down == 0] = 1.0
    return across, down
