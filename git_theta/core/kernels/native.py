"""The compiled kernels, called through ctypes, which releases the GIL.

The library has no Python in it. It lies beside this file where the package was built with a C
compiler at hand (``hatch_build.py``, ``scripts/build-kernels``).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from ctypes import c_float, c_int, c_int64, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from git_theta.core.arrays import new_array
from git_theta.core.kernels import merging
from git_theta.core.kernels.arrays import (
    LITERALS,
    TOKENS,
    TOTAL,
    Bytes,
    Coded,
    Flaw,
    Literals,
    Model,
    Tables,
    Tokens,
    Words,
)
from git_theta.core.kernels.merging import Limit

LIBRARY = Path(__file__).with_name("libkernels.so")
# As in kernels.c, raised with each change there: an older library is not used.
_ABI = 7
_P, _N = c_void_p, c_size_t
MOST_DELTAS = 16
"""As in kernels.c."""

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "split": (None, [_P, _N, c_uint, _P]),
    "join": (None, [_P, _N, c_uint, _P]),
    "difference": (None, [_P, _P, _N, _P]),
    "restore": (None, [_P, _P, _N, _P]),
    "changed": (_N, [_P, _P, _N, _N]),
    "histogram": (None, [_P, _P, _N, c_uint, _P, _P]),
    "encode": (_N, [_P, _P, _N, c_uint, _P, _P, _P, _N, _P, _P, _N, _P, c_uint64]),
    "decode": (c_int, [_P, _N, c_uint, _P, _P, _P, _N, _P, _P, _N, _P, _N, _P, _P]),
}


class Native:
    """The functions of ``reference.py``, compiled."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = {
            (name, size): _declared(library, f"theta_{name}_{size}", *signature)
            for name, signature in _SIGNATURES.items()
            for size in (1, 2, 4, 8)
            if (name, size) not in (("split", 1), ("join", 1))
        }
        self._tables = _declared(library, "theta_tables", None, [_P, _N, _P, _P])
        self._tally = _declared(library, "theta_tally", _N, [_P, _N, _N, *[_P] * 5])
        between = [_P, _N, c_float, c_int64, c_float, c_int64, _P]
        self._between = _declared(library, "theta_between", None, between)
        mixed = [c_uint32, _N, c_uint32, c_uint32, _P]
        self._uniform = _declared(library, "theta_uniform", None, mixed)
        self._spread = _declared(library, "theta_spread", None, [_P, _N, _N, _P, _P, _P])
        arguments = [_P, _N, _N, _P, _P, _P, _P, c_int, _P]
        self._agreeing_mean = _declared(library, "theta_agreeing_mean", c_int, arguments)
        self._largest = _declared(library, "theta_largest", None, [_P, _N, _N, _P])
        self._thin = _declared(library, "theta_thin", None, [_P, _P, _P, _N, c_int, _P])
        ranked = [_P, _N, _N, _P, _N, _P, c_int, _P, _P]
        self._thin_ranked = _declared(library, "theta_thin_ranked", None, ranked)
        self._bf16_difference = _declared(library, "theta_bf16_difference", None, [_P, _P, _N, _P])
        active = [_P, _N, _N, c_float, _P]
        self._active_counts = _declared(library, "theta_active_counts", None, active)
        self._active_mean = _declared(library, "theta_active_mean", None, [*active, _P])
        self._row_dots = _declared(library, "theta_row_dots", None, [_P, _P, _N, _N, _P, _P])

    def split(self, words: Words, exponent: int, planes: Bytes) -> None:
        """As the reference."""
        self._functions["split", words.itemsize](
            _address(words), words.size, exponent, _address(planes)
        )

    def join(self, planes: Sequence[Bytes], exponent: int, words: Words) -> None:
        """As the reference."""
        places = (c_void_p * len(planes))(*map(_address, planes))
        self._functions["join", len(planes)](places, words.size, exponent, _address(words))

    def difference(self, new: Words, old: Words, out: Words) -> None:
        """As the reference."""
        function = self._functions["difference", new.itemsize]
        function(_address(new), _address(old), new.size, _address(out))

    def restore(self, differences: Words, old: Words, out: Words) -> None:
        """As the reference."""
        function = self._functions["restore", old.itemsize]
        function(_address(differences), _address(old), old.size, _address(out))

    def count_changed(self, new: Words, old: Words, limit: int) -> int:
        """As the reference."""
        function = self._functions["changed", new.itemsize]
        return int(function(_address(new), _address(old), new.size, limit))

    def tokenize(self, new: Words, old: Words, shift: int, literals: Literals | None) -> Tokens:
        """As the reference."""
        counts = np.zeros((2, 256, LITERALS + 16 * new.itemsize), np.uint32)
        self._functions["histogram", new.itemsize](
            _address(new), _address(old), new.size, shift, _lookup(literals), _address(counts)
        )
        return Tokens(new, old, counts[0])

    def tables(self, frequencies: Words) -> Tables:
        """As the reference."""
        contexts = len(frequencies)
        tables = Tables(
            np.empty(contexts * TOTAL, np.uint32), np.empty(contexts * TOKENS, np.uint32)
        )
        self._tables(
            _address(frequencies), contexts, _address(tables.slots), _address(tables.ranges)
        )
        return tables

    def encode(
        self, tokens: Tokens, model: Model, ranges: Words, room: int, bit_count: int
    ) -> Coded | None:
        """As the reference."""
        new, old = tokens.new, tokens.old
        # One more, as a place is needed before it is known whether it is filled.
        states, words = np.empty(model.lanes, np.uint32), new_array(2 * room + 2).view(np.uint16)
        length = (bit_count + 7) // 8
        bits = new_array(length + 16)  # written eight bytes at a time
        bits[-17:] = 0
        count = self._functions["encode", new.itemsize](
            *(_address(new), _address(old), new.size, model.shift, _address(model.contexts)),
            *(_lookup(model.literals), _address(ranges), model.lanes, _address(states)),
            *(_address(words), words.size, _address(bits), bit_count),
        )
        if count > room:  # so is what says that it failed
            return None
        return Coded(states, words[words.size - count :], bits[:length])

    def decode(
        self, old: Words, model: Model, slots: Words, coded: Coded, out: Words
    ) -> Flaw | None:
        """As the reference."""
        return self._decode(old, model, slots, coded, _address(out), None)

    def compare(
        self, old: Words, model: Model, slots: Words, coded: Coded, expected: Words
    ) -> Flaw | None:
        """As ``decode``, but compare with ``expected`` block by block instead of writing."""
        return self._decode(old, model, slots, coded, None, _address(expected))

    def tally(self, words: Words, room: int) -> tuple[Words, Words, Words | None]:
        """As the reference."""
        tables, exact = np.empty((4, 1 << 15), np.uint32), np.empty(room, np.uint32)
        keys, counts = np.empty((2, min(words.size, 1 << 15) + 1), np.int64)
        bins = c_size_t()
        found = self._tally(
            *(_address(words), words.size, room, _address(tables), _address(exact)),
            *(_address(keys), _address(counts), ctypes.byref(bins)),
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
            *((c_void_p * number)(*map(_address, deltas)), number, out.size),
            *(_address(magnitudes), _address(lasts), _address(factors), _address(voices)),
            *(normalize, _address(out)),
        )
        return out

    def largest(self, deltas: Sequence[Words]) -> Words:
        """As the reference."""
        number, out = len(deltas), np.empty(deltas[0].size, np.float32)
        self._largest((c_void_p * number)(*map(_address, deltas)), number, out.size, _address(out))
        return out

    def thin(self, delta: Words, random: Words, probability: Words, divides: bool) -> Words:
        """As the reference."""
        out = np.empty(delta.size, np.float32)
        inputs = map(_address, (delta, random, probability))
        self._thin(*inputs, out.size, divides, _address(out))
        return out

    def thin_ranked(
        self, delta: Words, probabilities: Words, first: int, keys: Words, divides: bool
    ) -> Words:
        """As the reference."""
        rows, width = delta.shape
        scratch, out = np.empty((3, width), np.uint64), np.empty((rows, width), np.float32)
        self._thin_ranked(
            *(_address(delta), rows, width, _address(probabilities), first, _address(keys)),
            *(divides, _address(scratch), _address(out)),
        )
        return out

    def bf16_difference(self, left: Words, right: Words) -> Words:
        """As the reference."""
        out = np.empty(left.size, np.float32)
        self._bf16_difference(_address(left), _address(right), left.size, _address(out))
        return out

    def active_mean(
        self, deltas: Sequence[Words], threshold: float, gains: Sequence[float]
    ) -> Words:
        """As the reference."""
        number, out = len(deltas), np.empty(deltas[0].size, np.float32)
        more = np.array([gain - 1 for gain in gains], np.float32)
        places = (c_void_p * number)(*map(_address, deltas))
        self._active_mean(places, number, out.size, threshold, _address(more), _address(out))
        return out

    def active_counts(self, deltas: Sequence[Words], threshold: float) -> Words:
        """As the reference."""
        number, totals = len(deltas), np.zeros((len(deltas), 2), np.int64)
        places = (c_void_p * number)(*map(_address, deltas))
        self._active_counts(places, number, deltas[0].size, threshold, _address(totals))
        return totals

    def row_dots(self, left: Words, right: Words) -> Words:
        """As the reference."""
        rows, width = left.shape
        sums, out = np.empty(width // 2 + 1, np.float64), np.empty(rows, np.float64)
        self._row_dots(
            *(_address(left), _address(right), rows, width, _address(sums), _address(out))
        )
        return out

    def between(self, delta: Words, high: Limit, low: Limit) -> Words:
        """As the reference."""
        out = np.empty(delta.size, np.float32)
        self._between(_address(delta), delta.size, *high, *low, _address(out))
        return out

    def uniform(self, first: int, count: int, keys: tuple[int, int]) -> Words:
        """As the reference."""
        out = np.empty(count, np.float32)
        self._uniform(first, count, *keys, _address(out))
        return out

    def spread(self, numbers: Words, values: Words) -> Words:
        """As the reference."""
        rows, width = numbers.shape
        scratch, out = np.empty((2, width), np.uint64), np.empty((rows, width), np.float32)
        self._spread(
            *(_address(numbers), rows, width, _address(values), _address(scratch), _address(out))
        )
        return out

    def _decode(
        self,
        old: Words,
        model: Model,
        slots: Words,
        coded: Coded,
        out: int | None,
        expected: int | None,
    ) -> Flaw | None:
        states, values = coded.states.astype(np.uint32), model.literal_values
        flaw = self._functions["decode", old.itemsize](
            *(_address(old), old.size, model.shift, _address(model.contexts), _address(values)),
            *(_address(slots), model.lanes, _address(states), _address(coded.words)),
            *(coded.words.size, _address(coded.bits), coded.bits.size, out, expected),
        )
        return Flaw(flaw) if flaw else None


def load(path: str | Path = LIBRARY) -> Native | None:
    """Return the compiled kernels; ``None`` where there are none that this machine can use."""
    if sys.byteorder != "little" or not Path(path).exists():
        return None
    try:
        library = ctypes.CDLL(str(path))
        return Native(library) if library.theta_abi() == _ABI else None
    except (OSError, AttributeError):  # built for another machine, or not what it should be
        return None


def _declared(
    library: ctypes.CDLL, name: str, result: Any, arguments: list[Any]
) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(library, name)
    function.restype, function.argtypes = result, arguments  # type: ignore[attr-defined]
    return function


def _address(array: Words) -> int:
    assert array.flags.c_contiguous
    # A third of the time of array.ctypes, which matters for small tensors.
    address: int = array.__array_interface__["data"][0]
    return address


def _lookup(literals: Literals | None) -> int | None:
    return None if literals is None else _address(literals.lookup)
