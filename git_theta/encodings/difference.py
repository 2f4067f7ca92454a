"""Differences of words that are small where the values are near each other.

A float's bits read as a signed integer grow with its magnitude. Turning the order of the negative
ones round makes them grow with the value, so that floats n steps apart differ by n, across zero
too; -0.0 and NaNs are integers like any other. Subtraction wraps around, and zigzag (0, -1, 1,
-2, ...) leaves the high bytes of small differences zero.

All functions take flat arrays of one length and work on bits, so they lose nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta.tensor import DType

Bytes = NDArray[np.uint8]
Words = NDArray[Any]
"""Flat little-endian words of 1, 2, 4 or 8 bytes: signed or unsigned as said."""


@dataclass(frozen=True, slots=True)
class WordType:
    """How the bytes of a chunk are read: in words of ``size`` bytes, ``ordered`` like floats."""

    size: int
    ordered: bool

    @classmethod
    def of(cls, dtype: DType, length: int) -> WordType:
        """For ``length`` bytes of ``dtype``: single bytes where the dtype's words do not fit."""
        if length % dtype.word:
            return cls(1, False)
        # F8_E8M0 is an exponent without a sign: in order as it is.
        return cls(dtype.word, dtype.kind in ("float", "complex") and dtype.name != "F8_E8M0")

    def words(self, data: NDArray[Any]) -> Words:
        """``data`` as unsigned words, not copied."""
        return data.view(np.dtype(f"<u{self.size}"))

    def difference(self, new: Words, old: Words) -> Words:
        """The unsigned words that ``restore`` turns back into ``new``, given ``old``."""
        delta = self._rank(new)
        np.subtract(delta, self._rank(old), out=delta)
        sign = delta >> (8 * self.size - 1)
        np.add(delta, delta, out=delta)
        np.bitwise_xor(delta, sign, out=delta)
        return self.words(delta)

    def restore(self, difference: Words, old: Words) -> Words:
        """The words whose ``difference`` from ``old`` this is."""
        sign = np.negative((difference & 1).view(self._signed))
        delta = (difference >> 1).view(self._signed)
        np.bitwise_xor(delta, sign, out=delta)
        np.add(delta, self._rank(old), out=delta)
        return self.words(self._rank(delta))

    @property
    def _signed(self) -> np.dtype[Any]:
        return np.dtype(f"<i{self.size}")

    def _rank(self, words: Words) -> Words:
        """Words as signed integers in the order of the values; a copy; its own inverse."""
        signed = words.view(self._signed)
        if not self.ordered:
            return np.array(signed)
        bits = 8 * self.size - 1
        rank: Words = signed >> bits
        np.bitwise_and(rank, (1 << bits) - 1, out=rank)
        np.bitwise_xor(rank, signed, out=rank)
        return rank


def fit(base: Bytes, length: int) -> Bytes:
    """``base`` cut to ``length`` bytes, or continued with zeros up to them.

    So a tensor that lost or gained rows at its end has its old rows as the base of the new ones.
    """
    if base.size >= length:
        return base[:length]
    return np.concatenate([base, np.zeros(length - base.size, np.uint8)])
