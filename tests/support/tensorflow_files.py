"""Checkpoints as TensorFlow writes them, by hand: an index, and a file with the tensors' bytes.

The index is a table of sorted keys (doc/table_format.md in https://github.com/google/leveldb) whose
values are messages of tensorflow/core/protobuf/tensor_bundle.proto. The data has the tensors one
after another in the order of their names, the first of which is a text of any length: the graph.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_FLOAT, _STRING = 1, 7
_MAGIC = 0xDB4775248B80FB57


def bundle(arrays: Mapping[str, np.ndarray[Any, Any]]) -> tuple[bytes, bytes]:
    """Return the index and the data of float32 arrays."""
    graph = "".join(arrays).encode() * 3
    data = _varint(len(graph)) + bytes(4) + graph
    entries = {"": _field(1, 1) + _field(3, b"\x08\x01"), _GRAPH: _entry(_STRING, (), 0, len(data))}
    for name, array in sorted(arrays.items()):
        key = f"{name}/.ATTRIBUTES/VARIABLE_VALUE"
        entries[key] = _entry(_FLOAT, array.shape, len(data), array.nbytes)
        data += array.astype("<f4").tobytes()
    return _table(entries), data


def _entry(kind: int, shape: tuple[int, ...], offset: int, size: int) -> bytes:
    dimensions = b"".join(_field(2, _field(1, count)) for count in shape)
    return _field(1, kind) + _field(2, dimensions) + _field(4, offset) + _field(5, size)


def _table(entries: Mapping[str, bytes]) -> bytes:
    block = b"".join(
        _varint(0) + _varint(len(key)) + _varint(len(value)) + key.encode() + value
        for key, value in sorted(entries.items())
    )
    block += struct.pack("<2L", 0, 1)
    handle = _varint(0) + _varint(len(block))
    index = _varint(0) + _varint(1) + _varint(len(handle)) + b"\xff" + handle
    index += struct.pack("<2L", 0, 1)
    start = len(block) + 5
    footer = _varint(start) + _varint(0) + _varint(start) + _varint(len(index))
    footer = footer.ljust(40, b"\0") + struct.pack("<Q", _MAGIC)
    return block + bytes(5) + index + bytes(5) + footer


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])
