"""Ascending positions as gaps: bytes that compress to little more than the positions' entropy.

Each position is preceded by as many skipped ones as the bytes since the position before say,
where a byte of 255 stands for 255 skipped ones with no position behind them. Positions in a row
are zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

_LONG = 255


def to_gaps(positions: NDArray[np.integer[Any]]) -> Bytes:
    """The gap bytes of strictly ascending ``positions``."""
    skipped = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum(skipped // _LONG + 1) - 1
    stored = np.full(int(ends[-1]) + 1 if ends.size else 0, _LONG, np.uint8)
    stored[ends] = skipped % _LONG
    return stored


def from_gaps(stored: Bytes, count: int) -> NDArray[np.intp]:
    """The positions, all below ``count``, that gap bytes stand for.

    Raises ``CorruptObjectError`` when they end within a gap or reach beyond ``count``.
    """
    if stored.size and stored[-1] == _LONG:
        raise CorruptObjectError("the gaps between positions are cut off")
    ends = np.flatnonzero(stored != _LONG)
    positions = np.cumsum(stored, dtype=np.intp)[ends] + np.arange(ends.size)
    if positions.size and positions[-1] >= count:
        raise CorruptObjectError(f"position {positions[-1]} is beyond the last of {count} words")
    return positions
