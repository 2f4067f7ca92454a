"""ONNX models made by hand, right or wrong in any detail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def blob(field: int, content: bytes, claim: int | None = None) -> bytes:
    """``claim`` is the length that it states instead of the true one."""
    return varint(field << 3 | 2) + varint(len(content) if claim is None else claim) + content


def tensor_proto(
    name: str, kind: int, shape: tuple[int, ...], data: bytes, field: int = 9
) -> bytes:
    dims = b"".join(number(1, size) for size in shape)
    return dims + number(2, kind) + blob(8, name.encode()) + blob(field, data)


def model_proto(*initializers: bytes) -> bytes:
    graph = blob(1, blob(4, b"MatMul")) + blob(2, b"main")
    graph += b"".join(blob(5, each) for each in initializers)
    return number(1, 10) + blob(2, b"by hand") + blob(7, graph) + blob(8, number(2, 21))


def onnx_file(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """A model with float32 initializers."""
    return model_proto(
        *(tensor_proto(name, 1, array.shape, array.tobytes()) for name, array in arrays.items())
    )
