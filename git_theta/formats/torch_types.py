"""PyTorch's element types: what a pickle calls them, what safetensors calls them, their size."""

from __future__ import annotations

from typing import NamedTuple

from git_theta.core.dtypes import DTYPES


class Element(NamedTuple):
    """A dtype of ``DTYPES``, or an unknown one, and the bytes of one element."""

    dtype: str
    size: int


RAW = Element("U8", 1)
# Two 4-bit floats a byte, and torch counts bytes where safetensors counts floats.
PACKED_FLOAT4 = Element("F4", 1)

_BY_DTYPE = {
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
_BY_STORAGE = {
    "DoubleStorage": _BY_DTYPE["float64"],
    "FloatStorage": _BY_DTYPE["float32"],
    "HalfStorage": _BY_DTYPE["float16"],
    "BFloat16Storage": _BY_DTYPE["bfloat16"],
    "LongStorage": _BY_DTYPE["int64"],
    "IntStorage": _BY_DTYPE["int32"],
    "ShortStorage": _BY_DTYPE["int16"],
    "CharStorage": _BY_DTYPE["int8"],
    "ByteStorage": _BY_DTYPE["uint8"],
    "BoolStorage": _BY_DTYPE["bool"],
    "ComplexFloatStorage": _BY_DTYPE["complex64"],
    "ComplexDoubleStorage": _BY_DTYPE["complex128"],
    "QInt8Storage": _BY_DTYPE["qint8"],
    "QUInt8Storage": _BY_DTYPE["quint8"],
    "QInt32Storage": _BY_DTYPE["qint32"],
    "UntypedStorage": RAW,
    "_UntypedStorage": RAW,  # PyTorch 1.11 and 1.12
}


def dtype_named(name: str) -> Element | None:
    """Return the element of ``torch.<name>``, ``None`` where it is not known or not whole bytes."""
    return _BY_DTYPE.get(name)


def storage_named(name: str) -> Element | None:
    """Return the element of storage class ``name``; ``None`` if unknown or not whole bytes."""
    return _BY_STORAGE.get(name)


class Written(NamedTuple):
    """How tensors of a dtype are pickled: opcodes for the function, storage class and dtype.

    ``counted`` is what the storage counts, in bytes.
    """

    function: bytes
    storage: bytes
    dtype: bytes
    counted: int


def _written() -> dict[str, Written]:
    """Return it for the dtypes that git-theta knows, the packed ones apart."""
    untyped = Written(_global("torch._utils", "_rebuild_tensor_v3"), _UNTYPED, b"", 1)
    found = {
        element.dtype: untyped._replace(dtype=_global("torch", name))
        for name, element in _BY_DTYPE.items()
        if element.dtype in DTYPES and element is not PACKED_FLOAT4
    }
    function = _global("torch._utils", "_rebuild_tensor_v2")
    for name, element in _BY_STORAGE.items():
        if element.dtype in found and not name.endswith("UntypedStorage"):
            storage = _global("torch", name)
            found[element.dtype] = Written(function, storage, b"", element.size)
    return found


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


_UNTYPED = _global("torch.storage", "UntypedStorage")
WRITTEN = _written()
