"""Floats of every supported dtype as float64 and back, by IEEE 754 operations alone.

Bit patterns are little-endian unsigned words. Widening is exact; narrowing rounds to nearest,
ties to even. NaN payloads are not kept: who needs them must look at the words.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta.encodings.zigzag import Words

Doubles = NDArray[np.float64]
Singles = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """An IEEE-like format: ``fraction`` explicit significand bits, least normal ``2**minimum``."""

    name: str
    word: int
    fraction: int
    minimum: int

    @property
    def unsigned(self) -> np.dtype[Any]:
        """The numpy type of its bit patterns."""
        return np.dtype(f"<u{self.word}")


FORMATS = {
    f.name: f
    for f in (
        FloatFormat("F64", 8, 52, -1022),
        FloatFormat("F32", 4, 23, -126),
        FloatFormat("F16", 2, 10, -14),
        FloatFormat("BF16", 2, 7, -126),
    )
}


def widen(words: Words, form: FloatFormat) -> Doubles:
    """Return the values of bit patterns, exact."""
    with np.errstate(invalid="ignore"):
        return np.asarray(_native(words, form), np.float64)


def widen_single(words: Words, form: FloatFormat) -> Singles:
    """Return the values of bit patterns as float32: exact, but for F64, which is rounded."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(_native(words, form), np.float32)


def narrow(values: Floats, form: FloatFormat) -> Words:
    """Bit patterns of ``values`` rounded to ``form``.

    BF16 is rounded by way of float32, both times to nearest, ties to even.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if form.name == "F64":
            return values.astype("<f8", copy=False).view("<u8")
        if form.name == "F16":
            return values.astype("<f2").view("<u2")
        single = values.astype("<f4", copy=False).view("<u4")
    return _to_bfloat16(single) if form.name == "BF16" else single


def spacing(values: Doubles, form: FloatFormat) -> Doubles:
    """Return the distance from each finite value to the next larger in magnitude."""
    _, exponent = np.frexp(values)
    # frexp's significand is in [0.5, 1): its exponent is one more than the IEEE one; 0 has 0.
    exponent = np.where(values == 0, form.minimum, np.maximum(exponent - 1, form.minimum))
    step: Doubles = np.ldexp(1.0, exponent - form.fraction)
    return step


@cache
def spacings_of(form: FloatFormat) -> Doubles:
    """Return the ``spacing`` of numbers with each of the ``exponents``."""
    numbers = np.arange(1 << 8 * form.word - 1 - form.fraction)
    steps = np.ldexp(1.0, np.maximum(numbers, 1) - 1 + form.minimum - form.fraction)
    return np.tile(steps, 2)


def exponents(words: Words, form: FloatFormat) -> Words:
    """Return the bits above the fraction, the sign's among them."""
    found: Words = words >> np.array(form.fraction, words.dtype)
    return found


def _native(words: Words, form: FloatFormat) -> Floats:
    values: Floats = words.view(f"<f{form.word}") if form.name != "BF16" else _wide(words)
    return values


def _wide(words: Words) -> Singles:
    single: Words = words.astype("<u4") << np.uint32(16)
    return single.view(np.float32)


def _to_bfloat16(single: Words) -> Words:
    # Half a unit of the 16 bits kept, less one where the last of them is even: nearest-even.
    # A NaN could carry into the sign; callers replace NaNs by words of their own.
    even = (single >> np.uint32(16)) & np.uint32(1)
    upper: Words = (single + (np.uint32(0x7FFF) + even)) >> np.uint32(16)
    return upper.astype("<u2")
