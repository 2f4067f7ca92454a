"""Lays out a zip file as ``torch.save`` does: contents aligned, checksums behind them.

Source: ``caffe2/serialize/inline_container.cc`` and ``third_party/miniz-3.0.2/miniz.c`` in
https://github.com/pytorch/pytorch. Structures: see ``zip_directory``.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace

from git_theta.core.layout import Checksum, Layout, Rebuilt
from git_theta.errors import FormatError
from git_theta.formats.zip_directory import (
    END,
    END64,
    ENTRY,
    ENTRY_CHECKSUM,
    IN_ZIP64,
    LOCAL,
    LOCATOR,
    MAGIC,
    ZIP64_EXTRA,
    shown,
)

_UTF8, _DESCRIBED_LATER = 1 << 11, 1 << 3  # 4.4.4
_DESCRIPTOR = b"PK\x07\x08"  # 4.3.9
_MOST = 0xFFFF


@dataclass(frozen=True, slots=True)
class _Record:
    name: bytes
    header: int
    start: int
    length: int
    checksum: int

    @property
    def flags(self) -> int:
        """Return what says whether its checksum and sizes stand behind its content."""
        return _UTF8 | (_DESCRIBED_LATER if self.length else 0)

    @property
    def is_wide(self) -> bool:
        """Return whether its sizes or its place do not fit 32 bits."""
        return max(self.length, self.header) >= IN_ZIP64

    @property
    def extra(self) -> bytes:
        """Return the zip64 field."""
        wide = [self.length, self.length] if self.length >= IN_ZIP64 else []
        wide += [self.header] if self.header >= IN_ZIP64 else []
        return struct.pack(f"<2H{len(wide)}Q", ZIP64_EXTRA, 8 * len(wide), *wide) if wide else b""


class TorchWriter:
    """Records one after another, with their contents or, for storages, with room for them."""

    def __init__(self, alignment: int) -> None:
        self._alignment = alignment
        self._records: list[_Record] = []
        self._pieces: list[bytes] = []
        self._piece = bytearray()
        self._position = 0

    def add(self, name: bytes, content: bytes) -> None:
        """Write a record."""
        record = self._begin(name, len(content), zlib.crc32(content))
        self._write(content)
        self._end(record)

    def add_storage(self, name: bytes, length: int) -> int:
        """Leave room for the ``length`` bytes of a storage, and return where they begin."""
        record = self._begin(name, length, 0)
        self._pieces.append(bytes(self._piece))
        self._piece.clear()
        self._position += length
        self._end(record)
        return record.start

    def finish(self, layout: Layout) -> Rebuilt:
        """Return the file, with its directory. ``layout`` is that of its storages."""
        start, checksums = self._position, []
        for record in self._records:
            if record.length:
                behind = record.start + record.length + len(_DESCRIPTOR)
                places = (behind, self._position + ENTRY_CHECKSUM)
                checksums.append(Checksum(record.start, record.length, places))
            self._write(_entry(record))
        self._write(_directory_end(len(self._records), start, self._position - start))
        return Rebuilt(layout, (*self._pieces, bytes(self._piece)), tuple(checksums))

    def _begin(self, name: bytes, length: int, checksum: int) -> _Record:
        if len(name) > _MOST:
            raise FormatError(f"the name {shown(name)} is too long for a zip file")
        header = self._position
        record = _Record(name, header, 0, length, checksum)
        extra = record.extra
        before = header + LOCAL.size + len(name) + len(extra) + 4
        padding = -before % self._alignment
        fields = (MAGIC, 0, record.flags, 0, 0, 0, 0, 0, 0, len(name), len(extra) + 4 + padding)
        self._write(LOCAL.pack(*fields) + name + extra)
        self._write(b"FB" + padding.to_bytes(2, "little") + b"Z" * padding)
        return replace(record, start=self._position)

    def _end(self, record: _Record) -> None:
        if record.length:
            sizes = "<4sLQQ" if record.is_wide else "<4s3L"
            found = (_DESCRIPTOR, record.checksum, record.length, record.length)
            self._write(struct.pack(sizes, *found))
        self._records.append(record)

    def _write(self, data: bytes) -> None:
        self._piece += data
        self._position += len(data)


def _entry(record: _Record) -> bytes:
    size, header = min(record.length, IN_ZIP64), min(record.header, IN_ZIP64)
    fields = (record.flags, 0, 0, 0, record.checksum, size, size)
    lengths = (len(record.name), len(record.extra), 0)
    head = ENTRY.pack(b"PK\x01\x02", 0, 0, *fields, *lengths, 0, 0, 0, header)
    return head + record.name + record.extra


def _directory_end(count: int, start: int, length: int) -> bytes:
    # Written in 64 bits always, and again in 32.
    wide = END64.pack(b"PK\x06\x06", END64.size - 12, 0x31E, 45, 0, 0, count, count, length, start)
    locator = LOCATOR.pack(b"PK\x06\x07", 0, start + length, 1)
    few, start, length = min(count, _MOST), min(start, IN_ZIP64), min(length, IN_ZIP64)
    return wide + locator + END.pack(b"PK\x05\x06", 0, 0, few, few, length, start, 0)
