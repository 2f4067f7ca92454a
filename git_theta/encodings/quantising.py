"""Chooses with how many bits the factors of a found change are stored.

A finer grid costs a bit for every entry of the factors; a coarser one costs wrong predictions
among many more elements. In the gauge of the singular vectors, with every entry's step chosen so
that all contribute the same error, the bits in all are fewest.
"""

from __future__ import annotations

import math

import numpy as np

from git_theta.encodings.change import spread
from git_theta.encodings.factors import Arithmetic, Factors, Matrix, predict
from git_theta.encodings.float_formats import Doubles, FloatFormat
from git_theta.encodings.zigzag import Words

_SAMPLE = 1 << 16
# Error of an element, in powers of half a typical spacing. With the coarser ones nearly all
# predictions are wrong, and one bit more may help little: the search would end at once.
_ERRORS = range(2, 15)
_LARGEST = 2.0**62


def quantise(
    base: Words, actual: Words, form: FloatFormat, left: Doubles, right: Doubles, unit: float
) -> Factors | None:
    """Return ``left`` (rows, r) times ``right`` (r, columns) times ``unit`` as integer factors.

    The number of bits is the one with which factors and residual of a sample of rows together
    are smallest. ``None`` where the numbers are too far apart for integers.
    """
    svd = _singular(left, right)
    rows = spread(base.shape[0], max(1, _SAMPLE // base.shape[1]))
    entries, best, least = left.size + right.size, None, math.inf
    for bits in _ERRORS:
        factors = _rounded(svd, 2.0**-bits, unit, form)
        if factors is None:
            break
        missed = predict(base[rows], factors.rows(rows), form) != actual[rows]
        cost = bits * entries + actual.size * _entropy(np.count_nonzero(missed) / missed.size)
        if cost >= least:
            break
        best, least = factors, cost
    return best


def _singular(left: Doubles, right: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Left singular vectors (rows, r), singular values, right ones (r, columns) of the product."""
    q_left, r_left = np.linalg.qr(left)
    q_right, r_right = np.linalg.qr(right.T)
    u, values, v = np.linalg.svd(r_left @ r_right.T)
    return q_left @ u, values, v @ q_right.T


def _rounded(
    svd: tuple[Doubles, Doubles, Doubles], error: float, unit: float, form: FloatFormat
) -> Factors | None:
    """Integer factors whose rounding makes an error of about ``error`` in each element.

    ``None`` where they do not fit 64 bits.
    """
    left, values, right = svd
    step = error / math.sqrt(values.size / 6)
    fine_left = step * math.sqrt(right.shape[1]) / values
    fine_right = step * math.sqrt(left.shape[0]) / values
    whole_left = np.rint(left.T / fine_left[:, None])
    whole_right = np.rint(right / fine_right[:, None])
    if not max(np.abs(whole_left).max(), np.abs(whole_right).max()) < _LARGEST:
        return None
    return Factors(
        Matrix.of_integers(whole_left.astype(np.int64)),
        Matrix.of_integers(whole_right.astype(np.int64)),
        values * fine_left * fine_right * unit,
        Arithmetic.SINGLE if form.word == 2 else Arithmetic.DOUBLE,
    )


def _entropy(share: float) -> float:
    """Bits per element of a residual in which ``share`` of the elements are off by one."""
    if share in (0.0, 1.0):
        return share
    return share - share * math.log2(share) - (1 - share) * math.log2(1 - share)
