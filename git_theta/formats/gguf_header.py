"""The header of a GGUF file: metadata, which is skipped, and what it says of each tensor.

Magic and version, the numbers of tensors and of metadata entries (each: key, type, value), then
the tensors (each: name, dimensions, type, offset in the data), then padding up to the data, all
little-endian. Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from git_theta.core.layout import MAX_TENSORS, Source
from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_DIMENSIONS, MAX_NAME

MAGIC = b"GGUF"
# Version 1 had 32-bit counts; the first release of llama.cpp that wrote 2 was in August 2023.
VERSIONS = (2, 3)

_START = struct.Struct("<4sL2Q")
_U32, _U64 = struct.Struct("<L"), struct.Struct("<Q")
_INFO_TAIL = struct.Struct("<LQ")
_FIRST_WINDOW, _WINDOW = 16 << 10, 4 << 20
# A vocabulary of 262,144 tokens with its merges takes 16 MB, and 0.3 s to step over.
_MAX_HEADER = 128 << 20
_MAX_ENTRIES = 1 << 16
_MAX_NESTING = 4
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_ALIGNMENT_KEY = b"general.alignment"
_DEFAULT_ALIGNMENT, _MAX_ALIGNMENT = 32, 1 << 20


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """``dimensions`` begin with the one whose elements are adjacent; ``offset`` in the data."""

    name: str
    dimensions: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """``metadata`` is the place (start, stop) of all entries; the data begins at ``data_start``."""

    version: int
    entries: int
    metadata: tuple[int, int]
    alignment: int
    tensors: tuple[TensorInfo, ...]
    data_start: int

    def start_with(self, tensors: int) -> bytes:
        """Return the first bytes of a file with the same metadata and this many tensors."""
        return _START.pack(MAGIC, self.version, tensors, self.entries)


def pack_info(info: TensorInfo) -> bytes:
    """Return the bytes that say this of a tensor."""
    name = info.name.encode("utf-8", "surrogateescape")
    counts = b"".join(map(_U64.pack, info.dimensions))
    head = _U64.pack(len(name)) + name + _U32.pack(len(info.dimensions))
    return head + counts + _INFO_TAIL.pack(info.type, info.offset)


def padding(length: int, alignment: int) -> int:
    """Return how many bytes follow ``length`` bytes up to the next multiple of ``alignment``."""
    return -length % alignment


def read_header(source: Source) -> GgufHeader:
    """Return everything but the metadata. Raises ``FormatError``."""
    if source.size < _START.size:
        raise FormatError(f"{source.size} bytes are too few for a header")
    magic, version, count, entries = _START.unpack(source.read(0, _START.size))
    if magic != MAGIC or version not in VERSIONS:
        raise FormatError("it does not begin with GGUF and version 2 or 3, little-endian")
    if count > MAX_TENSORS or entries > _MAX_ENTRIES:
        raise FormatError(f"it has {count} tensors and {entries} entries, more than any checkpoint")
    cursor = _Cursor(source, _START.size)
    alignment = _DEFAULT_ALIGNMENT
    for _ in range(entries):
        alignment = _skip_entry(cursor) or alignment
    stop = cursor.position
    tensors = tuple(_info(cursor) for _ in range(count))
    data_start = cursor.position + padding(cursor.position, alignment)
    return GgufHeader(version, entries, (_START.size, stop), alignment, tensors, data_start)


class _Cursor:
    """Reads the header from front to back, a window at a time."""

    def __init__(self, source: Source, position: int) -> None:
        self._source = source
        self._window = b""
        self._begin = position  # of the window, in the file
        self._at = 0  # in the window

    @property
    def position(self) -> int:
        """Where the next byte stands in the file."""
        return self._begin + self._at

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        if self._at + count > len(self._window):
            self._fill(count)
        self._at += count
        return self._window[self._at - count : self._at]

    def skip(self, count: int) -> None:
        """Step over ``count`` bytes."""
        self._check(count)
        self._at += count

    def number(self, form: struct.Struct) -> int:
        """Return the next number."""
        if self._at + form.size > len(self._window):
            self._fill(form.size)
        found: int = form.unpack_from(self._window, self._at)[0]
        self._at += form.size
        return found

    def skip_strings(self, count: int) -> None:
        """Step over ``count`` strings: a vocabulary has 30,000 to 300,000, and as many merges."""
        unpack, width = _U64.unpack_from, _U64.size
        while count:
            window, at = self._window, self._at
            last = len(window) - width
            while count and at <= last:
                at += width + unpack(window, at)[0]
                count -= 1
            self._at = at
            if count:
                self._fill(width)
        self._check(0)

    def _fill(self, count: int) -> None:
        self._check(count)
        size = _WINDOW if self._window else _FIRST_WINDOW
        self._begin, self._at = self.position, 0
        left = self._source.size - self._begin
        self._window = self._source.read(self._begin, min(left, max(size, count)))

    def _check(self, count: int) -> None:
        end = self.position + count
        if end > self._source.size:
            raise FormatError("its header is cut off")
        if end > _MAX_HEADER:
            raise FormatError(f"its header has more than {_MAX_HEADER} bytes")


def _skip_entry(cursor: _Cursor) -> int | None:
    """Step over an entry of the metadata; return the alignment if it is that."""
    key = cursor.take(cursor.number(_U64))
    kind = cursor.number(_U32)
    if key != _ALIGNMENT_KEY:
        _skip_value(cursor, kind)
        return None
    alignment = cursor.number(_U32) if kind == _UINT32 else 0
    if alignment.bit_count() != 1 or alignment > _MAX_ALIGNMENT:
        raise FormatError("its alignment is not a power of two")
    return alignment


def _skip_value(cursor: _Cursor, kind: int, depth: int = 0) -> None:
    if kind == _STRING:
        cursor.skip(cursor.number(_U64))
    elif kind == _ARRAY and depth < _MAX_NESTING:
        _skip_array(cursor, depth)
    elif kind in _SCALAR_BYTES:
        cursor.skip(_SCALAR_BYTES[kind])
    else:
        raise FormatError(f"its metadata has a value of type {kind}, or nested too deeply")


def _skip_array(cursor: _Cursor, depth: int) -> None:
    kind, count = cursor.number(_U32), cursor.number(_U64)
    if kind in _SCALAR_BYTES:
        cursor.skip(count * _SCALAR_BYTES[kind])
    elif kind == _STRING:
        cursor.skip_strings(count)
    else:
        for _ in range(count):  # each takes 12 bytes at least, and the header's are limited
            _skip_value(cursor, kind, depth + 1)


def _info(cursor: _Cursor) -> TensorInfo:
    length = cursor.number(_U64)
    if length > MAX_NAME:
        raise FormatError(f"a tensor's name has more than {MAX_NAME} characters")
    name = cursor.take(length).decode("utf-8", "surrogateescape")
    count = cursor.number(_U32)
    if count > MAX_DIMENSIONS:
        raise FormatError(f"a tensor has {count} dimensions")
    dimensions = tuple(cursor.number(_U64) for _ in range(count))
    kind, offset = _INFO_TAIL.unpack(cursor.take(_INFO_TAIL.size))
    return TensorInfo(name, dimensions, kind, offset)
