"""Two factors of a change, and the one way in which they are multiplied and added to a base.

The product is evaluated element by element with IEEE 754 operations in an order that is fixed
here, never by a matrix routine, so it gives the same bits on every machine, with any number of
threads and any block size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from git_theta.encodings.float_formats import (
    FORMATS,
    Doubles,
    FloatFormat,
    Floats,
    narrow,
    widen,
    widen_single,
)
from git_theta.encodings.zigzag import Words, difference, restore

# Integers are stored as zigzag words.
INTEGERS = {"I8": 1, "I16": 2, "I32": 4, "I64": 8}

# Elements of a block: its term and total, in float64, fit an L2 cache of 1 MiB.
_BLOCK = 1 << 15


@dataclass(frozen=True, slots=True)
class Matrix:
    """A factor as it is stored: unsigned ``words`` of shape (rank, length).

    ``dtype`` is a float format's name, or one of ``INTEGERS``.
    """

    dtype: str
    words: Words

    @classmethod
    def of_integers(cls, whole: NDArray[np.int64]) -> Matrix:
        """Integers, in the shortest words that hold them all."""
        bits = whole.view("<u8")
        words = difference(bits, np.zeros_like(bits))
        size = next(size for size in INTEGERS.values() if int(words.max()) >> (8 * size) == 0)
        return cls(f"I{8 * size}", words.astype(f"<u{size}"))

    def values(self) -> Doubles:
        """Return the numbers, as float64 (integers beyond 53 bits are rounded)."""
        if self.dtype not in INTEGERS:
            return widen(self.words, FORMATS[self.dtype])
        size = INTEGERS[self.dtype]
        whole = restore(self.words, np.zeros_like(self.words))
        return whole.view(f"<i{size}").astype(np.float64)


class Arithmetic(IntEnum):
    """How the sum over the rank is computed; the numbers are stored."""

    DOUBLE = 0
    SINGLE = 1
    FUSED = 2


@dataclass(frozen=True, slots=True)
class Factors:
    """A change of rank r: ``left`` is (r, rows), ``right`` (r, columns), ``scales`` (r,).

    ``DOUBLE``: starting from 0, for k = 0, 1, ... in turn, ``(left[k, i] * scales[k]) *
    right[k, j]`` is added, each of the three operations rounded to float64. ``SINGLE``: the
    same, but the bracket and ``right`` are rounded to float32, and so are product and sum.

    ``FUSED``: as fused multiply-adds in float32 give it. Starting from 0, for k = 0, 1, ...,
    ``left[k, i] * right[k, j]`` is added in float64 and the sum is rounded to float32 each
    time; last, it is multiplied by ``float32(scales[0])`` in float32. For float32 factors that
    is what matrix routines do on most CPUs: with MKL 2025 and OpenBLAS 0.3 on AVX2 every element
    was equal up to rank 128, above which they sum in pieces; with OpenBLAS's AVX-512 kernels 99 %
    were.

    The change is then rounded to the dtype ``rounded``, if there is one, before it is added.
    """

    left: Matrix
    right: Matrix
    scales: Doubles
    arithmetic: Arithmetic
    rounded: str | None = None

    def rows(self, chosen: slice | NDArray[np.intp]) -> Factors:
        """Return the factors of some rows of the change."""
        words = np.ascontiguousarray(self.left.words[:, chosen])
        return replace(self, left=Matrix(self.left.dtype, words))


def predict(base: Words, factors: Factors, form: FloatFormat, block: int = _BLOCK) -> Words:
    """Return the words of ``base`` (rows, columns) plus the change, rounded to ``form``.

    The addition is in float64 where the change or the base is, else in float32. Where its result
    is NaN, the word is that of the base: IEEE 754 leaves payloads open. ``block`` elements are
    worked on at a time.
    """
    rows, columns = base.shape
    left, right = factors.left.values().T, factors.right.values()
    result = np.empty_like(base)
    step = max(1, block // max(1, columns))
    with np.errstate(all="ignore"):
        if factors.arithmetic != Arithmetic.FUSED:
            left = left * factors.scales
        if factors.arithmetic == Arithmetic.SINGLE:
            left, right = left.astype(np.float32), right.astype(np.float32)
        for start in range(0, rows, step):
            here = slice(start, start + step)
            change = _change(left[here], right, factors)
            result[here] = _add(base[here], change, factors.rounded, form)
    return result


def _change(left: Floats, right: Floats, factors: Factors) -> Floats:
    fused = factors.arithmetic == Arithmetic.FUSED
    term = np.empty((left.shape[0], right.shape[1]), right.dtype)
    total = np.zeros(term.shape, np.float32 if fused else right.dtype)
    for k in range(right.shape[0]):
        np.multiply(left[:, k, None], right[k], out=term)
        np.add(term, total, out=total, casting="same_kind")
    return np.multiply(total, np.float32(factors.scales[0]), out=total) if fused else total


def _add(base: Words, change: Floats, rounded: str | None, form: FloatFormat) -> Words:
    if rounded is not None:
        kept = widen(narrow(change, FORMATS[rounded]), FORMATS[rounded]).astype(change.dtype)
        change = np.where(np.isnan(change), change, kept)
    is_double = change.dtype == np.float64 or form.name == "F64"
    total = (widen(base, form) if is_double else widen_single(base, form)) + change
    words, undefined = narrow(total, form), np.isnan(total)
    return np.where(undefined, base, words) if undefined.any() else words
