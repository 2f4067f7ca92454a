"""Frames: one encoded chunk as self-describing bytes (``docs/spec.md``, Frame).

::

    magic "GTHF" | u8 version | u8 encoding | u8 flags | u8 parts | u64 frame length
    u64 raw length | 32 content hash | 32 base content hash, if flag bit 0
    u8 word, u64 columns of the base, if flag bit 1: it is transposed
    u8 n, dtype name | u16 n, params
    per part: u8 word, u8 exponent, u64 words, per plane: u8 method, u64 stored length
    the planes' stored bytes

Numbers are little-endian. Nothing here trusts what it reads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from git_theta.codec import entropy, planes
from git_theta.core.hashes import HASH_BYTES
from git_theta.core.layout import MAX_RAW, Buffer, Encoded, Part, Transposition
from git_theta.errors import CorruptObjectError, UnsupportedVersionError

MAGIC = b"GTHF"
VERSION = 1
MAX_PARTS = 16
# Parts may be larger than the chunk (positions and values), but not without bound.
_PARTS_FACTOR, _PARTS_EXTRA = 2, 1 << 20

_FIXED = struct.Struct("<4sBBBBQQ32s")
_U8, _U16 = struct.Struct("<B"), struct.Struct("<H")
_PART, _PLANE = struct.Struct("<BBQ"), struct.Struct("<BQ")
_TRANSPOSITION = struct.Struct("<BQ")
_HAS_BASE, _IS_TRANSPOSED = 1, 2
_WORDS = (1, 2, 4, 8)

_MAX_NAME = 255
HEADER_BYTES = _FIXED.size + HASH_BYTES + _TRANSPOSITION.size + 1 + _MAX_NAME
"""As many bytes of a frame (or all of a shorter one) as ``read_header`` needs."""

PARAMS_BYTES = _U16.size + 0xFFFF
"""As many bytes may follow the header before an encoding's params end."""


class Header(NamedTuple):
    """What a frame says of itself; ``length`` is the frame's own, hashes are hex."""

    encoding: int
    dtype: str
    raw_length: int
    content: str
    base: str | None
    length: int
    transposition: Transposition | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded chunk: how, of what dtype, how many raw bytes with which hash, on which base."""

    encoding: int
    dtype: str
    raw_length: int
    content: str
    base: str | None
    encoded: Encoded
    transposition: Transposition | None = None


def encode_frame(frame: Frame) -> list[Buffer]:
    """Return the frame as buffers to be written one after another; large ones are not copied.

    A dtype's name that is not up to 255 printable ASCII characters is left out.
    """
    table, stored = _pack(frame.encoded.parts)
    name, params = _name(frame.dtype), frame.encoded.params
    turned = frame.transposition
    rest = b"".join(
        [
            bytes.fromhex(frame.base or ""),
            _TRANSPOSITION.pack(turned.word, turned.columns) if turned else b"",
            _U8.pack(len(name)) + name,
            _U16.pack(len(params)) + params,
            table,
        ]
    )
    fixed = _FIXED.pack(
        MAGIC,
        VERSION,
        frame.encoding,
        (_HAS_BASE if frame.base else 0) | (_IS_TRANSPOSED if turned else 0),
        len(frame.encoded.parts),
        _FIXED.size + len(rest) + sum(map(len, stored)),
        frame.raw_length,
        bytes.fromhex(frame.content),
    )
    return [fixed + rest, *(data for data in stored if len(data))]


def _pack(parts: Iterable[Part]) -> tuple[bytes, list[Buffer]]:
    """Return the part headers, and the stored bytes of every plane."""
    table, stored = [], []
    for part in parts:
        table.append(_PART.pack(part.word, part.exponent, part.nbytes // part.word))
        for plane in planes.split(part.data, part.word, part.exponent):
            method, data = entropy.pack(plane, part.is_coded)
            table.append(_PLANE.pack(method, len(data)))
            stored.append(data)
    return b"".join(table), stored


def _name(dtype: str) -> bytes:
    # What an unknown dtype is called tells a decoder nothing: it is raw bytes under any name.
    fits = dtype.isascii() and dtype.isprintable() and len(dtype) <= _MAX_NAME
    return dtype.encode("ascii") if fits else b""


def decode_frame(data: Buffer) -> Frame:
    """Read and decompress a frame that may come from a stranger.

    Raises ``UnsupportedVersionError`` for a newer version and ``CorruptObjectError`` for anything
    malformed, before memory is taken for it.
    """
    reader = _Reader(memoryview(data))
    header, part_count = _header(reader)
    if header.length != len(reader.data):
        _fail(f"states {header.length} bytes, has {len(reader.data)}")
    params = bytes(reader.take(reader.unpack(_U16)[0]))
    tables = [_part_table(reader) for _ in range(part_count)]
    total = sum(table.word * table.count for table in tables)
    if total > parts_limit(header.raw_length):
        _fail(f"its parts would take {total} bytes")
    parts = tuple(_part(reader, table) for table in tables)
    if reader.remaining:
        _fail(f"{reader.remaining} bytes follow the last plane")
    head = header.encoding, header.dtype, header.raw_length, header.content, header.base
    return Frame(*head, Encoded(params, parts), header.transposition)


def parts_limit(raw_length: int) -> int:
    """Return how many bytes the parts of a chunk of ``raw_length`` bytes may have together."""
    return _PARTS_FACTOR * raw_length + _PARTS_EXTRA


def read_header(data: Buffer) -> Header:
    """Return the header of the frame that begins ``data``, from its first ``HEADER_BYTES``.

    Raises as ``decode_frame`` does.
    """
    return _header(_Reader(memoryview(data)))[0]


def read_params(data: Buffer) -> bytes:
    """Return an encoding's params from the first ``HEADER_BYTES + PARAMS_BYTES`` of a frame."""
    reader = _Reader(memoryview(data))
    _header(reader)
    return bytes(reader.take(reader.unpack(_U16)[0]))


def iter_headers(read: Callable[[int, int], bytes], size: int) -> Iterator[tuple[int, Header]]:
    """Yield the offset and header of every frame in an object of ``size`` bytes.

    ``read`` gives the bytes at an offset, of a length. Raises ``CorruptObjectError`` where the
    object is not frames back to back.
    """
    offset = 0
    while offset < size:
        header = read_header(read(offset, min(HEADER_BYTES, size - offset)))
        if header.length > size - offset:
            _fail(f"reaches beyond its object by {header.length - size + offset} bytes")
        yield offset, header
        offset += header.length


def estimate(parts: Iterable[Part], blocks: int = planes.SAMPLE_BLOCKS) -> int:
    """Return the bytes that ``parts`` will take in a frame, from a sample of ``blocks`` of each.

    Exact for parts that are not larger than such a sample.
    """
    return sum(_estimate(part, blocks) for part in parts)


def _estimate(part: Part, blocks: int) -> int:
    headers = _PART.size + part.word * _PLANE.size
    if part.is_coded:
        return headers + part.nbytes
    sampled = planes.sample(part.data, part.word, blocks)
    cut = planes.split(sampled, part.word, part.exponent)
    if sampled.size == part.nbytes:
        return headers + sum(len(entropy.pack(p)[1]) for p in cut)
    share = sum(entropy.predict(plane) for plane in cut)
    return headers + round(share * (part.nbytes // part.word))


class _Reader:
    """Takes bytes off the front of a buffer, and never more than there are."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    @property
    def remaining(self) -> int:
        return len(self.data) - self.position

    def take(self, count: int) -> memoryview:
        if count > self.remaining:
            _fail("it is cut off")
        start = self.position
        self.position += count
        return self.data[start : start + count]

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size))


@dataclass(frozen=True, slots=True)
class _PartTable:
    word: int
    exponent: int
    count: int
    planes: tuple[tuple[int, int], ...]
    """For each plane its method and stored length."""


def _header(reader: _Reader) -> tuple[Header, int]:
    """Return the header up to the dtype's name, and the number of parts."""
    _check_magic(reader.data)
    _, _, encoding, flags, parts, length, raw_length, content = reader.unpack(_FIXED)
    if flags not in (0, _HAS_BASE, _HAS_BASE | _IS_TRANSPOSED):
        _fail(f"unknown flags {flags:#x}")
    if parts > MAX_PARTS:
        _fail(f"{parts} parts")
    if not 0 < raw_length <= MAX_RAW:
        _fail(f"raw length {raw_length}")
    base = reader.take(HASH_BYTES).hex() if flags & _HAS_BASE else None
    turned = _transposition(reader) if flags & _IS_TRANSPOSED else None
    name = bytes(reader.take(reader.unpack(_U8)[0]))
    if not name.isascii() or not name.decode("ascii").isprintable():
        _fail(f"dtype {name!r}")
    kind = name.decode("ascii")
    header = Header(encoding, kind, raw_length, content.hex(), base, length, turned)
    if length < reader.position:
        _fail(f"states {length} bytes, its header alone is longer")
    return header, parts


def _transposition(reader: _Reader) -> Transposition:
    word, columns = reader.unpack(_TRANSPOSITION)
    if word not in _WORDS or not 0 < columns <= MAX_RAW:
        _fail(f"a base in rows of {columns} words of {word} bytes")
    return Transposition(word, columns)


def _check_magic(data: memoryview) -> None:
    if data[: len(MAGIC)] != MAGIC or len(data) <= len(MAGIC):
        _fail("it does not begin as frames do")
    version = data[len(MAGIC)]
    if version > VERSION:
        raise UnsupportedVersionError(
            f"frame version {version} is newer than this git-theta reads ({VERSION})",
            hint="pip install --upgrade theta-vcs",
        )
    if version < VERSION:
        _fail(f"version {version}")


def _part_table(reader: _Reader) -> _PartTable:
    word, exponent, count = reader.unpack(_PART)
    if word not in _WORDS:
        _fail(f"words of {word} bytes")
    if exponent >= 8 * word or (exponent and word == 1):
        _fail(f"exponents of {exponent} bits in words of {word} bytes")
    entries = tuple(_plane_entry(reader, count) for _ in range(word))
    return _PartTable(word, exponent, count, entries)


def _plane_entry(reader: _Reader, count: int) -> tuple[int, int]:
    method, stored = reader.unpack(_PLANE)
    if not entropy.is_possible(method, stored, count):
        _fail(f"a plane of {count} bytes stored by method {method} in {stored} bytes")
    return method, stored


def _part(reader: _Reader, table: _PartTable) -> Part:
    unpacked = [
        entropy.unpack(method, reader.take(stored), table.count) for method, stored in table.planes
    ]
    return Part(table.word, planes.join(unpacked, table.exponent).data, table.exponent)


def _fail(what: str) -> NoReturn:
    raise CorruptObjectError(f"malformed frame: {what}")
