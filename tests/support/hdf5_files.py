"""HDF5 files made by hand as new versions write them, right or wrong in any detail."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

F32 = b"\x11\x20\x1f\x00" + struct.pack("<LHHBBBBL", 4, 0, 32, 23, 8, 0, 23, 127)
ROOT = 48


def message(kind: int, data: bytes) -> bytes:
    return struct.pack("<BHB", kind, len(data), 0) + data


def header(*messages: bytes) -> bytes:
    body = b"".join(messages)
    return b"OHDR\x02\x02" + struct.pack("<L", len(body)) + body + bytes(4)


def link(name: str, address: int) -> bytes:
    raw = name.encode()
    return message(6, b"\1\1" + struct.pack("<H", len(raw)) + raw + struct.pack("<Q", address))


def dataset(shape: tuple[int, ...], address: int, length: int, datatype: bytes = F32) -> bytes:
    space = struct.pack(f"<BBBB{len(shape)}Q", 2, len(shape), 0, 1, *shape)
    place = struct.pack("<BBQQ", 3, 1, address, length)
    return header(message(1, space), message(3, datatype), message(8, place))


def hdf5(root: bytes, rest: bytes = b"", end: int | None = None) -> bytes:
    """A file with the header of its root group, and what follows that."""
    size = ROOT + len(root) + len(rest)
    head = b"\x89HDF\r\n\x1a\n\x02\x08\x08\0"
    places = struct.pack("<4Q4x", 0, (1 << 64) - 1, size if end is None else end, ROOT)
    return head + places + root + rest


def hdf5_file(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """A file with float32 datasets in its root group."""
    start = ROOT + len(header(*(link(name, 0) for name in arrays)))
    parts, links = [], []
    for name, array in arrays.items():
        size = len(dataset(array.shape, 0, 0))
        parts += [dataset(array.shape, start + size, array.nbytes), array.tobytes()]
        links.append(link(name, start))
        start += size + array.nbytes
    return hdf5(header(*links), b"".join(parts))
