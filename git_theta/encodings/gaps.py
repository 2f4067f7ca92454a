"""Ascending positions as gaps: bytes that compress to little more than the positions' entropy.

Each position is preceded by as many skipped ones as the bytes since the position before say,
where a byte of 255 stands for 255 skipped ones with no position behind them. Positions in a row
are zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

_LONG = 255
_BLOCK = 1 << 16


def to_gaps(positions: NDArray[np.integer[Any]], before: int = -1) -> Bytes:
    """Return the gap bytes of strictly ascending ``positions``, all of them after ``before``."""
    skipped = np.diff(positions, prepend=before) - 1
    ends = np.cumsum(skipped // _LONG + 1) - 1
    stored = np.full(int(ends[-1]) + 1 if ends.size else 0, _LONG, np.uint8)
    stored[ends] = skipped % _LONG
    return stored


def from_gaps(stored: Bytes, count: int) -> NDArray[np.intp]:
    """Return the positions, all below ``count``, that gap bytes stand for.

    Raises ``CorruptObjectError`` when they end within a gap or reach beyond ``count``.
    """
    return np.concatenate([np.zeros(0, np.intp), *iter_positions(stored, count)])


def iter_positions(stored: Bytes, count: int) -> Iterator[NDArray[np.intp]]:
    """Yield the positions of ``from_gaps`` in pieces: they take eight times the memory of gaps."""
    if stored.size and stored[-1] == _LONG:
        raise CorruptObjectError("the gaps between positions are cut off")
    passed = 0
    for start in range(0, stored.size, _BLOCK):
        gaps = stored[start : start + _BLOCK]
        ends = np.flatnonzero(gaps != _LONG)
        skipped = np.cumsum(gaps, dtype=np.intp)
        positions = skipped[ends] + np.arange(passed, passed + ends.size)
        passed += int(skipped[-1]) + ends.size
        if passed > count:
            raise CorruptObjectError(f"positions reach beyond the last of {count} words")
        yield positions
