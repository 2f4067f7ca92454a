"""The central directory of a zip file: which records it holds, and where their bytes lie.

Source: PKWARE's APPNOTE.TXT 6.3.10, whose section numbers stand beside each structure. Only what
locates a record is read: dates and attributes are skeleton bytes like any other. Checksums are
too, but a merge must find them to write new ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from git_theta.core.layout import MAX_TENSORS, Checksum, Source
from git_theta.errors import FormatError
from git_theta.formats.checks import quote

MAGIC = b"PK\x03\x04"

LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7 local file header
ENTRY = struct.Struct("<4s6H3L5H2L")  # 4.3.12 central directory header
END = struct.Struct("<4s4H2LH")  # 4.3.16 end of central directory record
END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14 zip64 end of central directory record
LOCATOR = struct.Struct("<4sLQL")  # 4.3.15 zip64 end of central directory locator
_EXTRA = struct.Struct("<2H")  # 4.5.1 extensible data fields: id, length

ZIP64_EXTRA = 0x0001  # 4.5.3
_MAX_COMMENT = 0xFFFF
IN_ZIP64 = 0xFFFFFFFF
_ENCRYPTED = 1
_DESCRIBED_LATER = 8  # 4.4.4: checksum and sizes follow the content
LOCAL_CHECKSUM = 14  # bytes before it in a local file header
ENTRY_CHECKSUM = 16  # bytes before it in a central directory header
ENTRY_SIZE = 24  # and before the length of the content
STORED, DEFLATED = 0, 8  # 4.4.5
_MAX_DIRECTORY = 128 << 20


class Record(NamedTuple):
    """``length`` bytes of the file, whose local header is at ``header``; both in bytes.

    ``plain`` says whether they are the record's content as it is: not compressed, not encrypted;
    ``deflated`` whether they are a stream of DEFLATE.
    """

    name: bytes
    header: int
    length: int
    plain: bool
    deflated: bool = False


def first_name(source: Source) -> bytes | None:
    """Return the name of the record at the beginning of the file, ``None`` if there is none."""
    if source.size < LOCAL.size:
        return None
    fields = LOCAL.unpack(source.read(0, LOCAL.size))
    if fields[0] != MAGIC or LOCAL.size + fields[9] > source.size:
        return None
    return source.read(LOCAL.size, fields[9])


def archive_start(source: Source) -> int | None:
    """Return where the zip file begins that ends at the end of ``source``, without a comment.

    ``None`` where there is none, or it does not say.
    """
    end = source.size - END.size
    if end < 0:
        return None
    signature, _, _, _, _, length, offset, _ = END.unpack(source.read(end, END.size))
    if signature != b"PK\x05\x06":
        return None
    # Counted from its own beginning, the directory stands ``offset`` bytes before its end.
    before = length + offset
    if end >= LOCATOR.size + END64.size:
        at = end - LOCATOR.size
        marked, _, offset64, _ = LOCATOR.unpack(source.read(at, LOCATOR.size))
        if marked == b"PK\x06\x07":
            end, before = at - END64.size, offset64
    return end - before if 0 <= before <= end else None


def read_directory(source: Source) -> dict[bytes, Record]:
    """Return every record by name, in the directory's order. Raises ``FormatError``."""
    records: dict[bytes, Record] = {}
    for record, _ in _entries(source):
        if record.name in records:
            raise FormatError(f"the zip record {shown(record.name)} appears twice")
        records[record.name] = record
    return records


def checksums(source: Source) -> list[Checksum]:
    """Return the CRC-32 of the content of every plain record. Raises ``FormatError``."""
    found = []
    for record, entry in _entries(source):
        if record.plain and record.length:
            start = place(source, record)
            places = (_local_checksum(source, record, start), entry + ENTRY_CHECKSUM)
            found.append(Checksum(start, record.length, places))
    return found


def _local_checksum(source: Source, record: Record, start: int) -> int:
    """Return where a record's own checksum stands: in its header, or behind its content (4.3.9)."""
    flags = LOCAL.unpack(source.read(record.header, LOCAL.size))[2]
    if not flags & _DESCRIBED_LATER:
        return record.header + LOCAL_CHECKSUM
    end = start + record.length
    signed = source.read(end, min(4, source.size - end)) == b"PK\x07\x08"
    return end + 4 if signed else end


def _entries(source: Source) -> Iterator[tuple[Record, int]]:
    """Yield every record of the directory, and where its entry stands in the file."""
    count, length, start = _locate(source)
    if start + length > source.size:
        raise FormatError("its zip directory reaches beyond the end of the file")
    if length > _MAX_DIRECTORY:
        raise FormatError(f"its zip directory of {length} bytes is too large")
    if count > min(length // ENTRY.size, MAX_TENSORS):
        raise FormatError(f"its zip directory cannot hold {count} records")
    directory = source.read(start, length)
    position = 0
    for _ in range(count):
        entry = start + position
        record, position = _entry(directory, position)
        yield record, entry


def place(source: Source, record: Record) -> int:
    """Return where the record's bytes begin, by its local header. Raises ``FormatError``."""
    size = LOCAL.size + len(record.name)
    if record.header + size > source.size:
        raise FormatError(f"the zip record {shown(record.name)} lies beyond the end of the file")
    head = source.read(record.header, size)
    fields = LOCAL.unpack_from(head)
    if fields[0] != MAGIC or head[LOCAL.size :] != record.name or fields[9] != len(record.name):
        raise FormatError(f"the zip record {shown(record.name)} is not where the directory says")
    start: int = record.header + size + fields[10]
    if start + record.length > source.size:
        raise FormatError(f"the zip record {shown(record.name)} ends beyond the end of the file")
    return start


def shown(name: bytes) -> str:
    """Return a record's name for a message."""
    return quote(name.decode("utf-8", "replace"))


def _locate(source: Source) -> tuple[int, int, int]:
    """Return the directory: its number of entries, its length and its start in bytes."""
    tail_start = max(0, source.size - END.size - _MAX_COMMENT)
    tail = source.read(tail_start, source.size - tail_start)
    at = _find_end(tail)
    _, _, _, _, count, length, start, _ = END.unpack_from(tail, at)
    if IN_ZIP64 in (length, start) or count == 0xFFFF:
        return _locate64(source, tail_start + at) or (count, length, start)
    return count, length, start


def _find_end(tail: bytes) -> int:
    # A comment may follow, and may contain the signature: the last one that fits is right.
    at = tail.rfind(b"PK\x05\x06")
    while at >= 0:
        if at + END.size <= len(tail):
            comment = END.unpack_from(tail, at)[7]
            if at + END.size + comment <= len(tail):
                return at
        at = tail.rfind(b"PK\x05\x06", 0, at)
    raise FormatError("the zip directory at its end is missing: the file is cut off or not a zip")


def _locate64(source: Source, end: int) -> tuple[int, int, int] | None:
    """Return the same from the zip64 record; ``None`` if no locator precedes ``end``."""
    if end < LOCATOR.size:
        return None
    signature, _, at, _ = LOCATOR.unpack(source.read(end - LOCATOR.size, LOCATOR.size))
    if signature != b"PK\x06\x07":
        return None
    if at + END64.size > source.size:
        raise FormatError("its zip64 directory record lies beyond the end of the file")
    fields = END64.unpack(source.read(at, END64.size))
    if fields[0] != b"PK\x06\x06":
        raise FormatError("its zip64 directory record is not where the locator says")
    return fields[7], fields[8], fields[9]


def _entry(directory: bytes, position: int) -> tuple[Record, int]:
    if position + ENTRY.size > len(directory):
        raise FormatError("its zip directory is cut off")
    fields = ENTRY.unpack_from(directory, position)
    if fields[0] != b"PK\x01\x02":
        raise FormatError("its zip directory is malformed")
    flags, method, stored, size, header = fields[3], fields[4], fields[8], fields[9], fields[16]
    name_end = position + ENTRY.size + fields[10]
    extra_end = name_end + fields[11]
    end = extra_end + fields[12]
    if end > len(directory):
        raise FormatError("its zip directory is cut off")
    name = directory[position + ENTRY.size : name_end]
    if IN_ZIP64 in (stored, size, header):
        size, stored, header = _from_extra(directory[name_end:extra_end], (size, stored, header))
    plain = method == STORED and not flags & _ENCRYPTED and stored == size
    deflated = method == DEFLATED and not flags & _ENCRYPTED
    return Record(name, header, stored, plain, deflated), end


def _from_extra(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the values, those that did not fit 32 bits from the zip64 extra field."""
    position = 0
    while position + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, position)
        body = extra[position + _EXTRA.size : position + _EXTRA.size + length]
        if kind == ZIP64_EXTRA:
            return _substitute(body, values)
        position += _EXTRA.size + length
    return values


def _substitute(body: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    wanted = [index for index, value in enumerate(values) if value == IN_ZIP64]
    if len(body) < 8 * len(wanted):
        raise FormatError("a zip64 field of its directory is cut off")
    found = list(values)
    for nth, index in enumerate(wanted):
        found[index] = int.from_bytes(body[8 * nth : 8 * nth + 8], "little")
    return found[0], found[1], found[2]
