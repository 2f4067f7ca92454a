"""Where the chunks of HDF5 datasets lie: each is an array of its own, of one shape.

Source: sections IV.A.2.i, III.A.1 and VII of "HDF5 File Format Specification Version 3.0". Of the
five indexes of version 4, the three are read that datasets of a fixed size have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from git_theta.core.layout import MAX_TENSORS, Source
from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_DIMENSIONS
from git_theta.formats.hdf5_headers import UNDEFINED

_CHUNKED = 2
_IN_TREE = 0
_TREE = struct.Struct("<4sBBH16x")  # III.A.1: signature, type, level, entries
_OF_CHUNKS = 1
_DEEPEST = 16
_SINGLE, _IMPLICIT, _FIXED = 1, 2, 3
_ARRAY = struct.Struct("<4s2xBBQQ")  # VII.C: signature, bytes of an entry, bits of a page, entries
_BLOCK_HEAD = 4 + 1 + 1 + 8  # signature, version, client, address of the header


class Chunked(NamedTuple):
    """A dataset in chunks of ``shape``; ``start`` is that of the index, of ``kind``."""

    shape: tuple[int, ...]
    item: int
    start: int
    kind: int

    @property
    def length(self) -> int:
        """Bytes of a chunk."""
        return prod(self.shape) * self.item


class Piece(NamedTuple):
    """A chunk: the index of its first element, and its place in the file."""

    first: tuple[int, ...]
    start: int


def chunked(data: bytes) -> Chunked | None:
    """Return what a layout message says of chunks; ``None`` for other layouts or indexes."""
    if data[0] == 3 and data[1] == _CHUNKED:
        return _version3(data)
    return _version4(data) if data[0] == 4 and data[1] == _CHUNKED else None


def pieces(source: Source, found: Chunked, shape: Sequence[int]) -> Iterator[Piece]:
    """Yield the chunks of a dataset of ``shape`` that are in the file. Raises ``FormatError``."""
    if found.start == UNDEFINED or len(shape) != len(found.shape) or not found.length:
        return
    if found.kind == _IN_TREE:
        yield from _below(source, found, found.start, _DEEPEST)
        return
    grid = [range(0, size, step) for size, step in zip(shape, found.shape, strict=True)]
    count = prod(map(len, grid))
    if count > MAX_TENSORS:
        raise FormatError(f"a dataset has {count} chunks, more than any model needs")
    starts = _starts(source, found, count)
    for first, start in zip(product(*grid), starts, strict=False):
        if start != UNDEFINED:
            yield Piece(first, start)


def _version3(data: bytes) -> Chunked | None:
    count = data[2]
    sizes = _numbers(data, 11, count, 4)
    if not 1 < count <= MAX_DIMENSIONS + 1 or len(sizes) < count:
        return None
    (start,) = struct.unpack_from("<Q", data, 3)
    return Chunked(tuple(sizes[:-1]), sizes[-1], start, _IN_TREE)


def _version4(data: bytes) -> Chunked | None:
    if len(data) < 6:
        return None
    flags, count, width = data[2:5]
    sizes, at = _numbers(data, 5, count, width), 5 + count * width
    kind = data[at] if at < len(data) else 0
    # Of a single chunk flag 2 says that it is filtered; a page's bits precede an array's place.
    at += 2 if kind == _FIXED else 1
    known = kind in (_SINGLE, _IMPLICIT, _FIXED) and not (kind == _SINGLE and flags & 2)
    if not known or not 1 < count <= MAX_DIMENSIONS + 1 or len(data) < at + 8:
        return None
    (start,) = struct.unpack_from("<Q", data, at)
    return Chunked(tuple(sizes[:-1]), sizes[-1], start, kind)


def _numbers(data: bytes, start: int, count: int, width: int) -> list[int]:
    places = range(start, min(start + count * width, len(data) - width + 1), width or 1)
    return [int.from_bytes(data[at : at + width], "little") for at in places]


def _below(source: Source, found: Chunked, address: int, depth: int) -> Iterator[Piece]:
    """Yield the chunks below a node: keys (bytes, filters, first element) and children in turn."""
    signature, kind, level, count = _TREE.unpack(_read(source, address, _TREE.size))
    if signature != b"TREE" or kind != _OF_CHUNKS or level >= depth:
        raise FormatError(f"there are no chunks at byte {address}")
    rank = len(found.shape)
    entry = struct.Struct(f"<LL{rank + 1}QQ")
    entries = _read(source, address + _TREE.size, entry.size * count)
    for size, filters, *first, child in entry.iter_unpack(entries):
        if level:
            yield from _below(source, found, child, level)
        elif size == found.length and not filters:
            yield Piece(tuple(first[:rank]), child)


def _starts(source: Source, found: Chunked, count: int) -> Iterator[int]:
    if found.kind == _FIXED:
        return _of_array(source, found.start, count)
    return iter(range(found.start, found.start + count * found.length, found.length))


def _of_array(source: Source, address: int, count: int) -> Iterator[int]:
    """Yield the entries of a fixed array; none of one in pages, which has over 1,024."""
    signature, size, bits, entries, block = _ARRAY.unpack(_read(source, address, _ARRAY.size))
    if signature != b"FAHD":
        raise FormatError(f"there is no array of chunks at byte {address}")
    if size != 8 or bits > 31 or entries > 1 << bits or block == UNDEFINED:
        return
    if _read(source, block, 4) != b"FADB":
        raise FormatError(f"there are no entries of an array at byte {block}")
    found = _read(source, block + _BLOCK_HEAD, 8 * min(entries, count))
    yield from (start for (start,) in struct.iter_unpack("<Q", found))


def _read(source: Source, start: int, size: int) -> bytes:
    if start + size > source.size:
        raise FormatError(f"{size} bytes at byte {start} lie beyond the end of the file")
    return source.read(start, size)
