"""What git's index knows of files besides their content: size, times, inode (gitformat-index(5)).

Git takes a file for unmodified if these are what its index says, and else reads all of it. No
command records them for a file that git has neither read nor written, so they are put into the
index here. Nothing else in it is touched, of no other entry and of no extension.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from git_theta.core.sharing import adjust
from git_theta.git.blob_files import git_blob

# Of an entry: times of change and of modification in s and ns, device, inode; mode; user, group,
# size; then the blob's id and flags. Numbers are cut to 32 bits.
_HEADER, _FLAGS, _EXTENSION = struct.Struct(">4sLL"), struct.Struct(">H"), struct.Struct(">4sL")
_FIRST, _LAST = struct.Struct(">6L"), struct.Struct(">3L")
_AFTER_MODE = _FIRST.size + 4
_BLOB = _AFTER_MODE + _LAST.size
_EXTENDED, _STAGE = 0x4000, 0x3000
_VERSIONS = (2, 3, 4)
_WORD = 0xFFFFFFFF


class Written(NamedTuple):
    """A file whose bytes are known: where it is, its status, and what git stores of it."""

    file: Path
    status: os.stat_result
    text: bytes


def record(index: Path, written: Mapping[str, Written]) -> set[str]:
    """Let ``index`` say that files, by path, are unmodified; return the paths of which it does.

    The others were changed since, or the index has other content for them, is locked, or is of a
    kind that is not written here: git must read them. The index keeps its time, by which git
    tells which of all files may have been written to after it looked.
    """
    index = index.resolve()  # beside which git has its lock, too
    lock = index.with_name(f"{index.name}.lock")
    # A full disk, for one: git then tries, and has words for it.
    with suppress(OSError), ExitStack() as undo:
        descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        undo.callback(lock.unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as output:
            recorded = _write(index, written, output)
        adjust(lock)
        if recorded:
            lock.replace(index)
            undo.pop_all()
            return recorded
    return set()


def is_same(status: os.stat_result, other: os.stat_result) -> bool:
    """Return whether nobody replaced the file, or wrote to it, between the two."""
    return _stamp(status) == _stamp(other)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_dev, status.st_ino, status.st_size, *times)


def _write(index: Path, written: Mapping[str, Written], output: BinaryIO) -> set[str]:
    """Write the changed index to ``output``; return the paths whose files it knows then."""
    status, content = index.stat(), bytearray(index.read_bytes())
    width, recorded = _width(content), set[str]()
    entries = _entries(content, width) if width else {}
    for path, of in written.items():
        start = entries.get(os.fsencode(path))
        if start is not None and _is_known(content[start + _BLOB :][:width], of):
            _put(content, start, of.status)
            recorded.add(path)
    content[len(content) - width :] = _checksum(content, width)
    output.write(content)
    output.flush()
    os.utime(output.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    return recorded


def _width(content: bytearray) -> int:
    """Return the bytes of an id, which is hashed as the index is; 0 where that has no checksum."""
    return next((w for w in (20, 32) if content[-w:] == _checksum(content, w)), 0)


def _checksum(content: bytearray, width: int) -> bytes:
    algorithm = hashlib.sha256 if width == 32 else hashlib.sha1
    return algorithm(memoryview(content)[: len(content) - width], usedforsecurity=False).digest()


def _entries(content: bytearray, width: int) -> dict[bytes, int]:
    """Return where the entry of each path begins, of those that are in no conflict.

    None of an index with entries elsewhere, or with what this knows nothing of.
    """
    _, version, count = _HEADER.unpack_from(content)
    found, name, at = dict[bytes, int](), b"", _HEADER.size
    for _ in range(count if version in _VERSIONS else 0):
        start = at
        (flags,) = _FLAGS.unpack_from(content, start + _BLOB + width)
        at = start + _BLOB + width + (4 if flags & _EXTENDED else 2)
        if version == 4:
            dropped, at = _number(content, at)
            name = name[: len(name) - dropped]
        else:
            name = b""
        end = content.index(0, at)
        name += content[at:end]
        # One NUL, and before version 4 as many more as fill eight bytes.
        at = end + 1 if version == 4 else start + (end - start) // 8 * 8 + 8
        if not flags & _STAGE:
            found[name] = start
    return found if _is_complete(content, at, width) else {}


def _number(content: bytearray, at: int) -> tuple[int, int]:
    """Return the number at ``at``, of seven bits a byte, and where it ends."""
    value = content[at] & 0x7F
    while content[at] & 0x80:
        at += 1
        value = ((value + 1) << 7) | (content[at] & 0x7F)
    return value, at + 1


def _is_complete(content: bytearray, at: int, width: int) -> bool:
    """Return whether no extension changes what the entries mean: git gives those small letters.

    But for a sparse index, which has folders for entries. A split one names another file.
    """
    while at < len(content) - width:
        name, length = _EXTENSION.unpack_from(content, at)
        if name[:1].islower() and name != b"sdir":
            return False
        at += _EXTENSION.size + length
    return True


def _is_known(blob: bytearray, of: Written) -> bool:
    """Return whether the index has what the file was made from, and nobody changed it since."""
    digest = git_blob(blob.hex(), len(of.text))
    digest.update(of.text)
    try:
        is_untouched = is_same(of.file.lstat(), of.status)
    except OSError:
        return False
    # A size of which 32 bits are 0 means that git must read the file, or is written in another way.
    return is_untouched and digest.digest() == blob and bool(of.status.st_size & _WORD)


def _put(content: bytearray, start: int, status: os.stat_result) -> None:
    changed, modified = divmod(status.st_ctime_ns, 10**9), divmod(status.st_mtime_ns, 10**9)
    first = (*changed, *modified, status.st_dev, status.st_ino)
    last = (status.st_uid, status.st_gid, status.st_size)
    _FIRST.pack_into(content, start, *(number & _WORD for number in first))
    _LAST.pack_into(content, start + _AFTER_MODE, *(number & _WORD for number in last))
