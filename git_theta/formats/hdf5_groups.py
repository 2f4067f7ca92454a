"""Groups of HDF5 files from before version 1.8: symbol tables in a B-tree, names in a heap."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from git_theta.core.layout import Source
from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_NAME

_NODE = struct.Struct("<4sBBH16x")  # III.A.1: signature, type, level, entries
_SYMBOLS = struct.Struct("<4sBxH")  # III.B
_ENTRY = struct.Struct("<QQ24x")  # III.C: place of the name in the heap, address of the header
_HEAP = struct.Struct("<4s4x3Q")  # III.D: size, free list, address of the data
_DEEPEST = 16
_SOFT = (1 << 64) - 1  # a link by path, not by address


class SymbolTable:
    """The links of one group. Raises ``FormatError``."""

    def __init__(self, source: Source, tree: int, heap: int) -> None:
        self._source = source
        self._tree = tree
        signature, size, _, start = _HEAP.unpack(self._read(heap, _HEAP.size))
        if signature != b"HEAP":
            raise FormatError(f"there is no heap of names at byte {heap}")
        self._names = self._read(start, min(size, source.size))

    def links(self) -> Iterator[tuple[str, int]]:
        """Yield name and address of each link."""
        yield from self._below(self._tree, _DEEPEST)

    def _below(self, address: int, depth: int) -> Iterator[tuple[str, int]]:
        signature, kind, level, count = _NODE.unpack(self._read(address, _NODE.size))
        if signature != b"TREE" or kind or level >= depth:
            raise FormatError(f"there is no group at byte {address}")
        # Keys and children in turn, beginning and ending with a key.
        words = struct.unpack(f"<{2 * count}Q", self._read(address + _NODE.size, 16 * count))
        for child in words[1::2]:
            yield from self._below(child, level) if level else self._symbols(child)

    def _symbols(self, address: int) -> Iterator[tuple[str, int]]:
        signature, _, count = _SYMBOLS.unpack(self._read(address, _SYMBOLS.size))
        if signature != b"SNOD":
            raise FormatError(f"there are no links at byte {address}")
        entries = self._read(address + _SYMBOLS.size, _ENTRY.size * count)
        for name, header in _ENTRY.iter_unpack(entries):
            if header != _SOFT:
                yield self._name(name), header

    def _name(self, start: int) -> str:
        stop = self._names.find(b"\0", start, start + MAX_NAME)
        if stop < 0:
            raise FormatError("a link has no name")
        return self._names[start:stop].decode("utf-8", "surrogateescape")

    def _read(self, start: int, size: int) -> bytes:
        if start + size > self._source.size:
            raise FormatError(f"{size} bytes at byte {start} lie beyond the end of the file")
        return self._source.read(start, size)
