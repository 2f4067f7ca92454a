"""Finds the factors by which the rows or columns of a matrix were scaled.

W' = round(W * l) bounds l for every element by two numbers; where the bounds of a whole row (or
column) have a common part, any l in it reproduces the row. The bounds of hundreds of elements
leave room for about one float32.
"""

from __future__ import annotations

import numpy as np

from git_theta.encodings.change import spread
from git_theta.encodings.float_formats import FORMATS, Doubles, FloatFormat, narrow, spacing, widen
from git_theta.encodings.zigzag import Words

ROWS, COLUMNS = 0, 1

# A sample: lines along the axis, elements of each.
_LINES, _ELEMENTS = 16, 64
_RATIOS = 255
_BLOCK = 1 << 18
# Below this share of changed elements the sparse encoding is the better one.
_FEW = 0.02
# Of the changed elements of a sample, the share that scaling may leave unexplained.
_MISSED = 0.25
# Elements further than this many spacings from the typical ratio do not take part in the bounds.
_NEAR = 4.0


def find_scales(base: Words, actual: Words, form: FloatFormat) -> tuple[int, Doubles] | None:
    """Return the axis and the factors, as float64 that are exact in float32 (float64 for F64).

    ``None`` where neither axis explains a sample of 16 lines along it, or where there would be
    a factor for every few elements.
    """
    rows, columns = base.shape
    axes = [axis for axis in (ROWS, COLUMNS) if 8 * base.shape[axis] <= base.size]
    for axis in sorted(axes, key=lambda axis: base.shape[axis]):
        sizes = (_LINES, _ELEMENTS) if axis == ROWS else (_ELEMENTS, _LINES)
        chosen = np.ix_(spread(rows, sizes[0]), spread(columns, sizes[1]))
        if _explains(base[chosen], actual[chosen], form, axis):
            return axis, _shortest(*_limits(base, actual, form, axis), form)
    return None


def _explains(base: Words, actual: Words, form: FloatFormat, axis: int) -> bool:
    changed = np.count_nonzero(base != actual)
    if changed <= _FEW * base.size or _varies(base, actual, form, axis):
        return False
    factors = np.expand_dims(_middle(*_limits(base, actual, form, axis)), 1 - axis)
    with np.errstate(all="ignore"):
        predicted = narrow(widen(base, form) * factors, form)
    return bool(np.count_nonzero(predicted != actual) <= _MISSED * changed)


def _varies(base: Words, actual: Words, form: FloatFormat, axis: int) -> bool:
    """Return whether too many pairs of neighbours along a line cannot have one factor.

    Then no factors explain enough elements. Takes a tenth of the time of the bounds.
    """
    lines, old = (actual, base) if axis == ROWS else (actual.T, base.T)
    even = lines.shape[1] & ~1
    with np.errstate(all="ignore"):
        before, after = widen(old[:, :even], form), widen(lines[:, :even], form)
        ratio = after / before
        # Twice as much as rounding may make of it, as these are rounded too.
        room = np.maximum(np.abs(after), 2.0**form.minimum) / np.abs(before) * 2.0**-form.fraction
        differ = np.abs(ratio[:, ::2] - ratio[:, 1::2]) > room[:, ::2] + room[:, 1::2]
    return bool(np.count_nonzero(differ) > _MISSED * base.size)


def _limits(base: Words, actual: Words, form: FloatFormat, axis: int) -> tuple[Doubles, Doubles]:
    """Return the bounds for the factor of every row (or column)."""
    lines, old = (actual, base) if axis == ROWS else (actual.T, base.T)
    low, high = np.empty(lines.shape[0]), np.empty(lines.shape[0])
    step = max(1, _BLOCK // lines.shape[1])
    with np.errstate(all="ignore"):
        for start in range(0, lines.shape[0], step):
            here = slice(start, start + step)
            low[here], high[here] = _bounds(widen(old[here], form), widen(lines[here], form), form)
    return low, high


def _bounds(old: Doubles, new: Doubles, form: FloatFormat) -> tuple[Doubles, Doubles]:
    """Return the bounds that the elements of each row set, where most of the row agrees."""
    half = spacing(new, form) / 2
    ratio, room = new / old, np.abs(half / old)
    typical = _median(ratio[:, spread(ratio.shape[1], _RATIOS)])
    agrees = np.abs(ratio - typical) <= 2 * _NEAR * room
    low = np.max(np.where(agrees, ratio - room, -np.inf), axis=1)
    high = np.min(np.where(agrees, ratio + room, np.inf), axis=1)
    return low, high


def _median(ratio: Doubles) -> Doubles:
    """Return the lower median of each row's finite numbers (rows, 1); NaN where there are none."""
    ordered = np.sort(np.where(np.isfinite(ratio), ratio, np.nan), axis=1)  # NaN comes last
    count = np.count_nonzero(np.isfinite(ratio), axis=1, keepdims=True)
    return np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, axis=1)


def _middle(low: Doubles, high: Doubles) -> Doubles:
    """Return a number between the bounds; 1 where there are none."""
    known = np.isfinite(low) & np.isfinite(high)
    return np.where(known, np.where(known, low, 0) / 2 + np.where(known, high, 0) / 2, 1.0)


def _shortest(low: Doubles, high: Doubles, form: FloatFormat) -> Doubles:
    """Return a float32 (float64 for F64) between the bounds, of the fewest bits."""
    target = FORMATS["F64" if form.name == "F64" else "F32"]
    with np.errstate(all="ignore"):
        middle = _middle(low, high)
        result = widen(narrow(middle, target), target)
        for bits in range(target.fraction, 0, -1):
            unit = spacing(middle, target) * 2.0 ** (target.fraction - bits)
            shorter = np.rint(middle / unit) * unit
            result = np.where((shorter > low) & (shorter < high), shorter, result)
    return result
