"""Git's index as bytes, of which one part can be changed in place (gitformat-index(5)).

That is what it knows of files besides their content: times, device, inode, owner and size. No
command records these for a file that git has neither read nor written. Nothing else is touched, of
no other entry and of no extension.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from git_theta.core.sharing import adjust

# Of an entry: times of change and of modification in s and ns, device, inode; mode; user, group,
# size; then the blob's id and flags. Numbers are cut to 32 bits.
_HEADER, _FLAGS, _EXTENSION = struct.Struct(">4sLL"), struct.Struct(">H"), struct.Struct(">4sL")
_FIRST, _LAST = struct.Struct(">6L"), struct.Struct(">3L")
_AFTER_MODE = _FIRST.size + 4
_BLOB = _AFTER_MODE + _LAST.size
_EXTENDED, _STAGE = 0x4000, 0x3000
_VERSIONS = (2, 3, 4)
_WORD = 0xFFFFFFFF

PATIENCE = 10.0
"""Seconds that another command gets to end and let go of the index.

Editors run `git status` whenever the index was written, which may keep it locked meanwhile.
"""
_PAUSE = 0.02


class IndexEntry(NamedTuple):
    """What an index has of a file: its numbers and the id of its blob; and that of its file."""

    numbers: tuple[int, ...]
    blob: bytes
    index_status: os.stat_result


Choice = Callable[[IndexEntry], os.stat_result | None]
"""Returns the status that an entry gets, or ``None`` to leave it alone."""


def edit(index: Path, choices: Mapping[str, Choice], patience: float | None = None) -> set[str]:
    """Give entries, by path, the status that is chosen for each; return the paths that got one.

    No others: of files in conflict, or in an index that stays locked or is of a kind that is not
    written here. The index keeps its time, by which git tells which of all files may have been
    written to after it looked. Raises what the choices raise, but for ``OSError``.

    ``patience`` is how many seconds to wait for a lock, ``PATIENCE`` by default.
    """
    index = index.resolve()
    lock = lock_of(index)
    # A full disk, for one: git then tries, and has words for it.
    with suppress(OSError), ExitStack() as undo:
        descriptor = _take(lock, PATIENCE if patience is None else patience)
        undo.callback(lock.unlink, missing_ok=True)
        with os.fdopen(descriptor, "wb") as output:
            chosen = _write(index, choices, output)
        adjust(lock)
        if chosen:
            lock.replace(index)
            undo.pop_all()
            return chosen
    return set()


def read(index: Path, paths: Iterable[str]) -> dict[str, IndexEntry]:
    """Return the entries of ``paths``, without those that ``edit`` would not write."""
    try:
        status, content = index.stat(), bytearray(index.read_bytes())
    except OSError:
        return {}
    width = _width(content)
    entries = _entries(content, width) if width else {}
    starts = {path: entries.get(os.fsencode(path)) for path in paths}
    return {p: _read(content, at, width, status) for p, at in starts.items() if at is not None}


def lock_of(index: Path) -> Path:
    """Return the file that is there while git, or ``edit``, writes ``index``."""
    index = index.resolve()
    return index.with_name(f"{index.name}.lock")


def _take(lock: Path, patience: float) -> int:
    """Create ``lock`` and return its descriptor; ``FileExistsError`` if others keep it so long."""
    until = time.monotonic() + patience
    while True:
        try:
            return os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            if time.monotonic() >= until:
                raise
        time.sleep(_PAUSE)


def numbers(status: os.stat_result) -> tuple[int, ...]:
    """Return what an entry says of a file with this status."""
    changed, modified = divmod(status.st_ctime_ns, 10**9), divmod(status.st_mtime_ns, 10**9)
    owner = (status.st_uid, status.st_gid)
    found = (*changed, *modified, status.st_dev, status.st_ino, *owner, status.st_size)
    return tuple(number & _WORD for number in found)


def _write(index: Path, choices: Mapping[str, Choice], output: BinaryIO) -> set[str]:
    """Write the changed index to ``output``; return the paths whose entries were changed."""
    before, content = index.stat(), bytearray(index.read_bytes())
    width, chosen = _width(content), set[str]()
    entries = _entries(content, width) if width else {}
    for path, choose in choices.items():
        start = entries.get(os.fsencode(path))
        status = None if start is None else choose(_read(content, start, width, before))
        if start is not None and status is not None:
            _put(content, start, status)
            chosen.add(path)
    if chosen and content[len(content) - width :].strip(b"\0"):
        content[len(content) - width :] = _checksum(content, width)
    output.write(content)
    output.flush()
    os.utime(output.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))
    return chosen


def _width(content: bytearray) -> int:
    """Return the bytes of an id, which is hashed as the index is; 0 where that is not known.

    With ``index.skipHash``, as of ``feature.manyFiles``, zeros are in the place of the checksum.
    """
    hashed = [width for width in (20, 32) if content[-width:] == _checksum(content, width)]
    blank = [width for width in (20, 32) if content[-width:] == bytes(width)]
    fitting = hashed or [width for width in blank if _fits(content, width)]
    return fitting[0] if len(fitting) == 1 else 0


def _fits(content: bytearray, width: int) -> bool:
    """Return whether entries and extensions with ids of ``width`` bytes fill the index."""
    try:
        return bool(_entries(content, width))
    except (IndexError, ValueError, struct.error):
        return False


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
    return at == len(content) - width


def _read(content: bytearray, start: int, width: int, index: os.stat_result) -> IndexEntry:
    first = _FIRST.unpack_from(content, start)
    last = _LAST.unpack_from(content, start + _AFTER_MODE)
    return IndexEntry((*first, *last), bytes(content[start + _BLOB :][:width]), index)


def _put(content: bytearray, start: int, status: os.stat_result) -> None:
    found = numbers(status)
    _FIRST.pack_into(content, start, *found[:6])
    _LAST.pack_into(content, start + _AFTER_MODE, *found[6:])
