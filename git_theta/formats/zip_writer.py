"""The headers of a new zip file whose records are stored as they are, or deflated.

Byte for byte those of Python's ``zipfile``, with which ``numpy.savez`` writes: dates of 1980, sizes
in zip64 fields of every local header. Structures: see ``zip_directory``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from git_theta.errors import FormatError
from git_theta.formats.zip_directory import (
    DEFLATED,
    END,
    END64,
    ENTRY,
    IN_ZIP64,
    LOCAL,
    LOCATOR,
    MAGIC,
    STORED,
    ZIP64_EXTRA,
    shown,
)

_VERSION = 45  # 4.4.3.2: zip64
_UNIX = 3  # 4.4.2
_UTF8 = 1 << 11  # 4.4.4
_DATE = 1 << 5 | 1  # the first day of 1980
_READ_WRITE = 0o600 << 16
LOCAL_SIZE = LOCAL.size + 4  # bytes before the length of the content, beside the name
_MOST_RECORDS, _LONGEST_NAME = 0xFFFF, 0xFFFF
# zipfile's limit: other readers take the sizes for signed.
_LARGEST = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class NewRecord:
    """``length`` bytes whose CRC-32 is ``checksum``, and which take ``stored`` bytes in the file.

    Deflated ones are no more than 2 GiB, and their length and checksum may be written later.
    """

    name: bytes
    length: int
    checksum: int
    stored: int
    is_deflated: bool = False

    @property
    def method(self) -> int:
        """Return how its content is compressed."""
        return DEFLATED if self.is_deflated else STORED


def local_header(record: NewRecord) -> bytes:
    """Return what precedes the content. Raises ``FormatError`` for a name that is too long."""
    name = record.name
    if len(name) > _LONGEST_NAME:
        raise FormatError(f"the name {shown(name)} is too long for a zip file")
    extra = struct.pack("<2H2Q", ZIP64_EXTRA, 16, record.length, record.stored)
    sizes = (record.checksum, IN_ZIP64, IN_ZIP64, len(name), len(extra))
    return LOCAL.pack(MAGIC, _VERSION, _flags(name), record.method, 0, _DATE, *sizes) + name + extra


def directory_entry(record: NewRecord, header: int) -> bytes:
    """Return the entry of the record whose local header is at ``header``, in bytes."""
    wide: list[int] = []
    size, stored, offset = record.length, record.stored, header
    if size > _LARGEST:
        wide, size, stored = [size, size], IN_ZIP64, IN_ZIP64
    if offset > _LARGEST:
        wide, offset = [*wide, offset], IN_ZIP64
    extra = struct.pack(f"<2H{len(wide)}Q", ZIP64_EXTRA, 8 * len(wide), *wide) if wide else b""
    made_by = _UNIX << 8 | _VERSION
    fields = (_flags(record.name), record.method, 0, _DATE, record.checksum, stored, size)
    lengths = (len(record.name), len(extra), 0)
    head = (b"PK\x01\x02", made_by, _VERSION, *fields, *lengths, 0, 0, _READ_WRITE, offset)
    return ENTRY.pack(*head) + record.name + extra


def directory_end(count: int, start: int, length: int) -> bytes:
    """Return what follows the ``count`` entries, ``length`` bytes in all from ``start``."""
    wide = b""
    if count > _MOST_RECORDS or max(start, length) > _LARGEST:
        versions = (END64.size - 12, _VERSION, _VERSION, 0, 0)
        wide = END64.pack(b"PK\x06\x06", *versions, count, count, length, start)
        wide += LOCATOR.pack(b"PK\x06\x07", 0, start + length, 1)
        count = min(count, _MOST_RECORDS)
        start, length = min(start, IN_ZIP64), min(length, IN_ZIP64)
    return wide + END.pack(b"PK\x05\x06", 0, 0, count, count, length, start, 0)


def _flags(name: bytes) -> int:
    if name.isascii():
        return 0
    try:
        name.decode()
    except UnicodeDecodeError:
        return 0
    return _UTF8
