"""PyTorch's element types: what a pickle calls them, what safetensors calls them, their size."""

from __future__ import annotations

from typing import NamedTuple


class Element(NamedTuple):
    """A dtype of ``DTYPES``, or an unknown one, and the bytes of one element."""

    dtype: str
    size: int


RAW = Element("U8", 1)
# Two 4-bit floats a byte, and torch counts bytes where safetensors counts floats.
PACKED_FLOAT4 = Element("F4", 1)

BY_DTYPE = {
    "float64": Element("F64", 8),
    "float32": Element("F32", 4),
    "float16": Element("F16", 2),
    "bfloat16": Element("BF16", 2),
    "float8_e4m3fn": Element("F8_E4M3", 1),
    "float8_e5m2": Element("F8_E5M2", 1),
    "float8_e8m0fnu": Element("F8_E8M0", 1),
    "float8_e4m3fnuz": Element("F8_E4M3FNUZ", 1),
    "float8_e5m2fnuz": Element("F8_E5M2FNUZ", 1),
    "float4_e2m1fn_x2": PACKED_FLOAT4,
    "int64": Element("I64", 8),
    "int32": Element("I32", 4),
    "int16": Element("I16", 2),
    "int8": Element("I8", 1),
    "uint64": Element("U64", 8),
    "uint32": Element("U32", 4),
    "uint16": Element("U16", 2),
    "uint8": Element("U8", 1),
    "bool": Element("BOOL", 1),
    "complex64": Element("C64", 8),
    "complex128": Element("C128", 16),
    # The rest are unknown to git-theta: exact, but never merged as numbers. Quantized integers
    # mean nothing without a scale, which is in the pickle.
    "complex32": Element("C32", 4),
    "qint8": Element("QINT8", 1),
    "quint8": Element("QUINT8", 1),
    "qint32": Element("QINT32", 4),
    "bits8": Element("BITS8", 1),
    "bits16": Element("BITS16", 2),
    "bits1x8": Element("BITS1X8", 1),
    "bits2x4": Element("BITS2X4", 1),
    "bits4x2": Element("BITS4X2", 1),
}
BY_STORAGE = {
    "DoubleStorage": BY_DTYPE["float64"],
    "FloatStorage": BY_DTYPE["float32"],
    "HalfStorage": BY_DTYPE["float16"],
    "BFloat16Storage": BY_DTYPE["bfloat16"],
    "LongStorage": BY_DTYPE["int64"],
    "IntStorage": BY_DTYPE["int32"],
    "ShortStorage": BY_DTYPE["int16"],
    "CharStorage": BY_DTYPE["int8"],
    "ByteStorage": BY_DTYPE["uint8"],
    "BoolStorage": BY_DTYPE["bool"],
    "ComplexFloatStorage": BY_DTYPE["complex64"],
    "ComplexDoubleStorage": BY_DTYPE["complex128"],
    "QInt8Storage": BY_DTYPE["qint8"],
    "QUInt8Storage": BY_DTYPE["quint8"],
    "QInt32Storage": BY_DTYPE["qint32"],
    "UntypedStorage": RAW,
    "_UntypedStorage": RAW,  # PyTorch 1.11 and 1.12
}


def dtype_named(name: str) -> Element | None:
    """Return the element of ``torch.<name>``, ``None`` where it is not known or not whole bytes."""
    return BY_DTYPE.get(name)


def storage_named(name: str) -> Element | None:
    """Return the element of storage class ``name``; ``None`` if unknown or not whole bytes."""
    return BY_STORAGE.get(name)
