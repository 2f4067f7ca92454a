"""Object headers of HDF5 files, and what their messages say of groups and datasets.

Source, whose section numbers stand beside each structure: "HDF5 File Format Specification Version
3.0" (https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html). Of the sizes that a file
may choose for addresses and lengths, only eight bytes are read, which is what everybody writes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from git_theta.core.layout import Source
from git_theta.errors import FormatError
from git_theta.formats.checks import MAX_DIMENSIONS, MAX_NAME

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = (1 << 64) - 1

_HEADER1 = struct.Struct("<BxHLL4x")  # IV.A.1.a: version, messages, references, bytes
_MESSAGE1 = struct.Struct("<HHB3x")
_MESSAGE2 = struct.Struct("<BHB")  # IV.A.1.b
_PLACE = struct.Struct("<QQ")
_CONTINUED = 0x10  # IV.A.2.q: more messages elsewhere
# An honest header of a dataset has 20 messages; attributes of a model's root may be 64 KiB each.
_MOST_MESSAGES = 4096
_MOST_BYTES = 1 << 20
_FLOATS = {(2, 5, 10): "F16", (2, 8, 7): "BF16", (4, 8, 23): "F32", (8, 11, 52): "F64"}


class Message(NamedTuple):
    """A message of an object header: its type and its content."""

    kind: int
    data: bytes


def root_address(source: Source) -> int:
    """Return the address of the root group's header. Raises ``FormatError``."""
    head = _read(source, 0, 96 if source.size >= 96 else min(48, source.size))
    if head[:8] != SIGNATURE or len(head) < 48:
        raise FormatError("it does not begin with the signature of HDF5")
    version = head[8]
    if version in (2, 3):  # II.A: superblock
        sizes, (base, _, end, root) = head[9:11], struct.unpack_from("<4Q", head, 12)
    elif version in (0, 1) and len(head) == 96:
        at = 24 + 4 * version
        sizes, (base, _, end) = head[13:15], struct.unpack_from("<3Q", head, at)
        (root,) = struct.unpack_from("<Q", head, at + 40)
    else:
        raise FormatError(f"its superblock has version {version}, unknown here")
    if sizes != b"\x08\x08" or base:
        raise FormatError("its addresses are not of 8 bytes from the start of the file")
    if end > source.size:
        raise FormatError(f"it is cut off: it says that it has {end:,} bytes")
    return int(root)


def messages(source: Source, address: int) -> Iterator[Message]:
    """Yield the messages of the object header at ``address``. Raises ``FormatError``."""
    blocks, is_second, order = _first_block(source, address)
    taken = count = 0
    while blocks:
        start, size = blocks.pop(0)
        taken += size
        if taken > _MOST_BYTES:
            raise FormatError("an object header is larger than any that is written")
        for message in _of_block(_read(source, start, size), is_second, order):
            count += 1
            if count > _MOST_MESSAGES:
                raise FormatError("an object header has more messages than any that is written")
            if message.kind == _CONTINUED and len(message.data) >= _PLACE.size:
                blocks.append(_continued(source, is_second, *_PLACE.unpack_from(message.data)))
            else:
                yield message


def _first_block(source: Source, address: int) -> tuple[list[tuple[int, int]], bool, int]:
    """Return the block of messages, and how these are written: version 2, with their order."""
    head = _read(source, address, 16)
    if head[:4] != b"OHDR":
        version, _, _, size = _HEADER1.unpack(head)
        if version != 1:
            raise FormatError(f"there is no object header at byte {address}")
        return [(address + 16, size)], False, 0
    flags, width = head[5], 1 << (head[5] & 3)
    at = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
    size = int.from_bytes(_read(source, at, width), "little")
    return [(at + width, size)], True, 2 if flags & 4 else 0


def _continued(source: Source, is_second: bool, start: int, size: int) -> tuple[int, int]:
    if not is_second:
        return start, size
    if size < 8 or _read(source, start, 4) != b"OCHK":
        raise FormatError(f"an object header does not go on at byte {start}")
    return start + 4, size - 8  # without signature and checksum


def _of_block(block: bytes, is_second: bool, order: int) -> Iterator[Message]:
    head, position = _MESSAGE2 if is_second else _MESSAGE1, 0
    while position + head.size + order <= len(block):
        kind, size, flags = head.unpack_from(block, position)
        position += head.size + order
        # A shared message (flag 2) is the place of the real one: committed datatypes, rare.
        yield Message(-1 if flags & 2 else kind, block[position : position + size])
        position += size


def shape_of(data: bytes) -> tuple[int, ...] | None:
    """Return the shape that a dataspace message (IV.A.2.b) says; ``None`` for none."""
    version, rank = data[0], data[1]
    start = {1: 8, 2: 4}.get(version)
    if start is None or rank > MAX_DIMENSIONS or (version == 2 and data[3] == 2):
        return None
    if len(data) < start + 8 * rank:
        raise FormatError("a dataspace is cut off")
    return struct.unpack_from(f"<{rank}Q", data, start)


def dtype_of(data: bytes) -> tuple[str, int] | None:
    """Return dtype and bytes of an element, by a datatype message (IV.A.2.d).

    Of what is no number of a known kind, or big-endian, the name says the bytes alone; ``None``
    for what is kept elsewhere.
    """
    kind, order, size = data[0] & 15, data[1] & 1, int.from_bytes(data[4:8], "little")
    name = f"HDF5_{8 * size}"
    if kind == 0 and not order and size in (1, 2, 4, 8):
        name = f"{'I' if data[1] & 8 else 'U'}{8 * size}"
    elif kind == 1 and not order and len(data) >= 16:
        name = _FLOATS.get((size, data[13], data[15]), name)
    # 3: texts of a fixed size, 7: references, 9: of any length.
    return None if kind in (3, 7, 9) or not size else (name, size)


def is_text(data: bytes) -> bool:
    """Return whether a datatype message is one of texts, or of references within the file."""
    kind = data[0] & 15
    return kind in (3, 7) or (kind == 9 and data[1] & 15 == 1)


def is_absent(data: bytes) -> bool:
    """Return whether a layout message is of a dataset in one piece that was never written."""
    return data[0] in (3, 4) and data[1] == 1


def is_dense(data: bytes) -> bool:
    """Return whether a link info message (IV.A.2.c) says that links are kept in a fractal heap."""
    at = 2 + 8 * (data[1] & 1) if len(data) > 1 else 0
    return len(data) >= at + 8 and int.from_bytes(data[at : at + 8], "little") != UNDEFINED


def contiguous(data: bytes) -> tuple[int, int] | None:
    """Return place and bytes of a dataset in one piece, by a layout message (IV.A.2.i)."""
    if len(data) < 18 or data[0] not in (3, 4) or data[1] != 1:
        return None
    address, size = _PLACE.unpack_from(data, 2)
    return None if address == UNDEFINED else (address, size)


def link_of(data: bytes) -> tuple[str, int] | None:
    """Return name and address of a link message (IV.A.2.g); ``None`` where it leaves the file."""
    flags = data[1]
    is_hard = not (flags & 8) or data[2] == 0
    at = 2 + bool(flags & 8) + 8 * bool(flags & 4) + bool(flags & 16)
    width = 1 << (flags & 3)
    length = int.from_bytes(data[at : at + width], "little")
    name = data[at + width : at + width + length]
    address = data[at + width + length :][:8]
    if not is_hard:
        return None
    if len(name) < length or length > MAX_NAME or len(address) < 8:
        raise FormatError("a link is cut off")
    return name.decode("utf-8", "surrogateescape"), int.from_bytes(address, "little")


def _read(source: Source, start: int, size: int) -> bytes:
    if start + size > source.size:
        raise FormatError(f"{size} bytes at byte {start} lie beyond the end of the file")
    return source.read(start, size)
