"""The compiled kernels, called through ctypes, which releases the GIL.

The library has no Python in it. It lies beside this file where the package was built with a C
compiler at hand (``hatch_build.py``, ``scripts/build-kernels``).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from ctypes import c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from git_theta.core.arrays import new_array
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
from git_theta.core.kernels.native_merging import NativeMerging, address, declared

LIBRARY = Path(__file__).with_name("libkernels.so")
# As in kernels.c, raised with each change there: an older library is not used.
_ABI = 7
_P, _N = c_void_p, c_size_t

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


class Native(NativeMerging):
    """The functions of ``reference.py`` and ``merging.py``, compiled."""

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(library)
        self._functions = {
            (name, size): declared(library, f"theta_{name}_{size}", *signature)
            for name, signature in _SIGNATURES.items()
            for size in (1, 2, 4, 8)
            if (name, size) not in (("split", 1), ("join", 1))
        }
        self._tables = declared(library, "theta_tables", None, [_P, _N, _P, _P])

    def split(self, words: Words, exponent: int, planes: Bytes) -> None:
        """As the reference."""
        self._functions["split", words.itemsize](
            address(words), words.size, exponent, address(planes)
        )

    def join(self, planes: Sequence[Bytes], exponent: int, words: Words) -> None:
        """As the reference."""
        places = (c_void_p * len(planes))(*map(address, planes))
        self._functions["join", len(planes)](places, words.size, exponent, address(words))

    def difference(self, new: Words, old: Words, out: Words) -> None:
        """As the reference."""
        function = self._functions["difference", new.itemsize]
        function(address(new), address(old), new.size, address(out))

    def restore(self, differences: Words, old: Words, out: Words) -> None:
        """As the reference."""
        function = self._functions["restore", old.itemsize]
        function(address(differences), address(old), old.size, address(out))

    def count_changed(self, new: Words, old: Words, limit: int) -> int:
        """As the reference."""
        function = self._functions["changed", new.itemsize]
        return int(function(address(new), address(old), new.size, limit))

    def tokenize(self, new: Words, old: Words, shift: int, literals: Literals | None) -> Tokens:
        """As the reference."""
        counts = np.zeros((2, 256, LITERALS + 16 * new.itemsize), np.uint32)
        self._functions["histogram", new.itemsize](
            address(new), address(old), new.size, shift, _lookup(literals), address(counts)
        )
        return Tokens(new, old, counts[0])

    def tables(self, frequencies: Words) -> Tables:
        """As the reference."""
        contexts = len(frequencies)
        tables = Tables(
            np.empty(contexts * TOTAL, np.uint32), np.empty(contexts * TOKENS, np.uint32)
        )
        self._tables(address(frequencies), contexts, address(tables.slots), address(tables.ranges))
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
            *(address(new), address(old), new.size, model.shift, address(model.contexts)),
            *(_lookup(model.literals), address(ranges), model.lanes, address(states)),
            *(address(words), words.size, address(bits), bit_count),
        )
        if count > room:  # so is what says that it failed
            return None
        return Coded(states, words[words.size - count :], bits[:length])

    def decode(
        self, old: Words, model: Model, slots: Words, coded: Coded, out: Words
    ) -> Flaw | None:
        """As the reference."""
        return self._decode(old, model, slots, coded, address(out), None)

    def compare(
        self, old: Words, model: Model, slots: Words, coded: Coded, expected: Words
    ) -> Flaw | None:
        """As ``decode``, but compare with ``expected`` block by block instead of writing."""
        return self._decode(old, model, slots, coded, None, address(expected))

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
            *(address(old), old.size, model.shift, address(model.contexts), address(values)),
            *(address(slots), model.lanes, address(states), address(coded.words)),
            *(coded.words.size, address(coded.bits), coded.bits.size, out, expected),
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


def _lookup(literals: Literals | None) -> int | None:
    return None if literals is None else address(literals.lookup)
