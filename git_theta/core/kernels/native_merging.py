"""The compiled kernels that merges use, called through ctypes, which releases the GIL."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import c_float, c_int, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

import numpy as np

from git_theta.core.kernels import merging
from git_theta.core.kernels.arrays import Words
from git_theta.core.kernels.merging import Limit

_P, _N = c_void_p, c_size_t
MOST_DELTAS = 16
"""As in kernels.c."""


class NativeMerging:
    """The functions of ``merging.py``, compiled."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._tally = declared(library, "theta_tally", _N, [_P, _N, _N, *[_P] * 5])
        between = [_P, _N, c_float, c_int64, c_float, c_int64, _P]
        self._between = declared(library, "theta_between", None, between)
        mixed = [c_uint32, _N, c_uint32, c_uint32, _P]
        self._uniform = declared(library, "theta_uniform", None, mixed)
        self._spread = declared(library, "theta_spread", None, [_P, _N, _N, _P, _P, _P])
        arguments = [_P, _N, _N, _P, _P, _P, _P, c_int, _P]
        self._agreeing_mean = declared(library, "theta_agreeing_mean", c_int, arguments)
        self._largest = declared(library, "theta_largest", None, [_P, _N, _N, _P])
        self._thin = declared(library, "theta_thin", None, [_P, _P, _P, _N, c_int, _P])
        ranked = [_P, _N, _N, _P, _N, _P, c_int, _P, _P]
        self._thin_ranked = declared(library, "theta_thin_ranked", None, ranked)
        self._bf16_difference = declared(library, "theta_bf16_difference", None, [_P, _P, _N, _P])
        active = [_P, _N, _N, c_float, _P]
        self._active_counts = declared(library, "theta_active_counts", None, active)
        self._active_mean = declared(library, "theta_active_mean", None, [*active, _P])
        self._row_dots = declared(library, "theta_row_dots", None, [_P, _P, _N, _N, _P, _P])

    def tally(self, words: Words, room: int) -> tuple[Words, Words, Words | None]:
        """As the reference."""
        tables, exact = np.empty((4, 1 << 15), np.uint32), np.empty(room, np.uint32)
        keys, counts = np.empty((2, min(words.size, 1 << 15) + 1), np.int64)
        bins = c_size_t()
        found = self._tally(
            *(address(words), words.size, room, address(tables), address(exact)),
            *(address(keys), address(counts), ctypes.byref(bins)),
        )
        here = slice(bins.value)
        return keys[here], counts[here], None if found > room else exact[:found].copy()

    def agreeing_mean(
        self,
        deltas: Sequence[Words],
        limits: Sequence[Limit],
        weights: Sequence[float],
        normalize: bool,
        electing: Sequence[float],
    ) -> Words:
        """As the reference."""
        number, out = len(deltas), np.empty(deltas[0].size, np.float32)
        if number > MOST_DELTAS:
            return merging.agreeing_mean(deltas, limits, weights, normalize, electing)
        magnitudes = np.array([magnitude for magnitude, _ in limits], np.float32)
        lasts = np.array([last for _, last in limits], np.int64)
        factors, voices = np.array(weights, np.float32), np.array(electing, np.float32)
        self._agreeing_mean(
            *((c_void_p * number)(*map(address, deltas)), number, out.size),
            *(address(magnitudes), address(lasts), address(factors), address(voices)),
            *(normalize, address(out)),
        )
        return out

    def largest(self, deltas: Sequence[Words]) -> Words:
        """As the reference."""
        number, out = len(deltas), np.empty(deltas[0].size, np.float32)
        self._largest((c_void_p * number)(*map(address, deltas)), number, out.size, address(out))
        return out

    def thin(self, delta: Words, random: Words, probability: Words, divides: bool) -> Words:
        """As the reference."""
        out = np.empty(delta.size, np.float32)
        inputs = map(address, (delta, random, probability))
        self._thin(*inputs, out.size, divides, address(out))
        return out

    def thin_ranked(
        self, delta: Words, probabilities: Words, first: int, keys: Words, divides: bool
    ) -> Words:
        """As the reference."""
        rows, width = delta.shape
        scratch, out = np.empty((3, width), np.uint64), np.empty((rows, width), np.float32)
        self._thin_ranked(
            *(address(delta), rows, width, address(probabilities), first, address(keys)),
            *(divides, address(scratch), address(out)),
        )
        return out

    def bf16_difference(self, left: Words, right: Words) -> Words:
        """As the reference."""
        out = np.empty(left.size, np.float32)
        self._bf16_difference(address(left), address(right), left.size, address(out))
        return out

    def active_mean(
        self, deltas: Sequence[Words], threshold: float, gains: Sequence[float]
    ) -> Words:
        """As the reference."""
        number, out = len(deltas), np.empty(deltas[0].size, np.float32)
        more = np.array([gain - 1 for gain in gains], np.float32)
        places = (c_void_p * number)(*map(address, deltas))
        self._active_mean(places, number, out.size, threshold, address(more), address(out))
        return out

    def active_counts(self, deltas: Sequence[Words], threshold: float) -> Words:
        """As the reference."""
        number, totals = len(deltas), np.zeros((len(deltas), 2), np.int64)
        places = (c_void_p * number)(*map(address, deltas))
        self._active_counts(places, number, deltas[0].size, threshold, address(totals))
        return totals

    def row_dots(self, left: Words, right: Words) -> Words:
        """As the reference."""
        rows, width = left.shape
        sums, out = np.empty(width // 2 + 1, np.float64), np.empty(rows, np.float64)
        self._row_dots(*(address(left), address(right), rows, width, address(sums), address(out)))
        return out

    def between(self, delta: Words, high: Limit, low: Limit) -> Words:
        """As the reference."""
        out = np.empty(delta.size, np.float32)
        self._between(address(delta), delta.size, *high, *low, address(out))
        return out

    def uniform(self, first: int, count: int, keys: tuple[int, int]) -> Words:
        """As the reference."""
        out = np.empty(count, np.float32)
        self._uniform(first, count, *keys, address(out))
        return out

    def spread(self, numbers: Words, values: Words) -> Words:
        """As the reference."""
        rows, width = numbers.shape
        scratch, out = np.empty((2, width), np.uint64), np.empty((rows, width), np.float32)
        self._spread(
            *(address(numbers), rows, width, address(values), address(scratch), address(out))
        )
        return out


def declared(
    library: ctypes.CDLL, name: str, result: Any, arguments: list[Any]
) -> Callable[..., Any]:
    """Return a function of the library that takes and returns these types."""
    function: Callable[..., Any] = getattr(library, name)
    function.restype, function.argtypes = result, arguments  # type: ignore[attr-defined]
    return function


def address(array: Words) -> int:
    """Return where a contiguous array lies."""
    assert array.flags.c_contiguous
    # A third of the time of array.ctypes, which matters for small tensors.
    address: int = array.__array_interface__["data"][0]
    return address
