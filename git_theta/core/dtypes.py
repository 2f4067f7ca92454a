"""Element types of tensors, by the names of the safetensors specification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

Kind = Literal["float", "int", "uint", "bool", "complex", "raw"]


class DType(NamedTuple):
    """An element type: ``bits`` per element, and what the bits mean."""

    name: str
    bits: int
    kind: Kind

    @property
    def word(self) -> int:
        """Bytes of the unit that planes and differences work on (1 for packed and unknown types).

        A complex number is two floats: its word is one of them.
        """
        if self.kind == "raw" or self.bits < 8:
            return 1
        return self.bits // (16 if self.kind == "complex" else 8)


# Names follow the safetensors specification, extended where torch has more.
DTYPES: dict[str, DType] = {
    d.name: d
    for d in (
        DType("F64", 64, "float"),
        DType("F32", 32, "float"),
        DType("F16", 16, "float"),
        DType("BF16", 16, "float"),
        DType("F8_E4M3", 8, "float"),
        DType("F8_E5M2", 8, "float"),
        DType("F8_E8M0", 8, "float"),
        DType("F8_E4M3FNUZ", 8, "float"),
        DType("F8_E5M2FNUZ", 8, "float"),
        DType("F6_E2M3", 6, "raw"),
        DType("F6_E3M2", 6, "raw"),
        DType("F4", 4, "raw"),
        DType("I64", 64, "int"),
        DType("I32", 32, "int"),
        DType("I16", 16, "int"),
        DType("I8", 8, "int"),
        DType("U64", 64, "uint"),
        DType("U32", 32, "uint"),
        DType("U16", 16, "uint"),
        DType("U8", 8, "uint"),
        DType("BOOL", 8, "bool"),
        DType("C64", 64, "complex"),
        DType("C128", 128, "complex"),
    )
}

DEFLATED = "DEFLATED_"
"""Begins the dtype of an array that is a stream of DEFLATE, before that of its elements."""

FRAMEWORK_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "C128": "complex128",
}
"""What torch, numpy and ml_dtypes call them, as far as each has them; packed ones are left out."""


def dtype(name: str) -> DType:
    """Return the dtype called ``name``.

    An unknown name is raw bytes, kept exactly and never merged.
    """
    return DTYPES.get(name) or DType(name, 8, "raw")


def element_count(shape: Sequence[int]) -> int:
    """Return the number of elements of a tensor of ``shape`` (1 for 0-d)."""
    return math.prod(shape)
