"""Raw bytes of any numeric dtype as float64, without torch."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from git_theta.core.arrays import Bytes
from git_theta.core.dtypes import dtype
from git_theta.encodings.float_formats import FORMATS
from git_theta.encodings.float_formats import widen as widen_float

Doubles = NDArray[np.float64]

_LETTERS = {"float": "f", "int": "i", "uint": "u", "bool": "u", "complex": "f"}

# Fraction bits, bias, and whether it is as IEEE 754 has it: the highest exponent is infinities and
# NaNs. Else there are no infinities, and one NaN: all ones, or ("FNUZ") what would be minus zero.
_BYTES = {
    "F8_E4M3": (3, 7, "all ones"),
    "F8_E5M2": (2, 15, "IEEE"),
    "F8_E4M3FNUZ": (3, 8, "minus zero"),
    "F8_E5M2FNUZ": (2, 16, "minus zero"),
}
_SCALE = "F8_E8M0"


def is_number(name: str) -> bool:
    """Tell whether the elements of a dtype are numbers of whole bytes."""
    return dtype(name).kind != "raw"


def widen(data: Bytes, name: str) -> Doubles:
    """Return the elements of dtype ``name`` in ``data``; complex ones as two numbers each."""
    if name in FORMATS:
        form = FORMATS[name]
        return widen_float(data.view(form.unsigned), form)
    if name in _BYTES or name == _SCALE:
        return _table(name)[data]
    kind = dtype(name)
    values = data.view(f"<{_LETTERS[kind.kind]}{kind.word}")
    return values.astype(np.float64)


@cache
def _table(name: str) -> Doubles:
    """Return the value of each of 256 bytes."""
    codes = np.arange(256)
    if name == _SCALE:
        return np.where(codes == 0xFF, np.nan, np.ldexp(1.0, codes - 127))
    fraction, bias, special = _BYTES[name]
    exponent, rest = (codes & 0x7F) >> fraction, codes & ((1 << fraction) - 1)
    normal = np.ldexp(1 + rest / (1 << fraction), exponent - bias)
    values = np.where(exponent == 0, np.ldexp(rest / (1 << fraction), 1 - bias), normal)
    if special == "IEEE":
        values[exponent == exponent.max()] = np.nan
        values[(exponent == exponent.max()) & (rest == 0)] = np.inf
    elif special == "all ones":
        values[(codes & 0x7F) == 0x7F] = np.nan
    signed = np.where(codes >= 0x80, -values, values)
    if special == "minus zero":
        signed[0x80] = np.nan
    return signed
