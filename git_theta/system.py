"""What differs between operating systems: positioned reads, durable writes, links, locks.

Linux is tested; macOS and Windows are not ruled out. No other module calls ``os.pread``,
``fcntl`` or the like.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from git_theta.errors import ChangedError, StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT} if hasattr(errno, "EDQUOT") else {errno.ENOSPC}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class FileSource:
    """A file read by position, safe for use by several threads.

    Positioned reads rather than a memory map: a file that is truncated while it is mapped kills
    the process, here it is a ``ChangedError``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes at ``offset``; ``ChangedError`` when the file is shorter."""
        data = _pread(self._file, offset, length)
        if len(data) != length:
            raise ChangedError(
                "the file became shorter while it was read",
                path=str(self._path),
                hint="run the command again when nothing writes to it",
            )
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class MemorySource:
    """Bytes in memory as a source."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes at ``offset``."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ChangedError("the source is shorter than expected")
        return self._data[offset : offset + length]


def _pread(file: BinaryIO, offset: int, length: int) -> bytes:
    pieces = []
    while length > 0:
        # Linux transfers at most 0x7ffff000 bytes a call.
        piece = os.pread(file.fileno(), min(length, 1 << 30), offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def cpu_count() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def atomic_file(target: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """Write a file that appears whole, synced and under its name, or not at all.

    The temporary file lies beside ``target`` and is removed on any failure. ``OSError`` becomes a
    ``StoreError`` that says what to do.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".tmp-")
    except OSError as error:
        raise store_error(error, target) from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise store_error(error, target) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link ``source`` at ``target``, or copy it atomically where links are not possible."""
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        with source.open("rb") as reader, atomic_file(target) as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)


def store_error(error: OSError, path: Path) -> StoreError:
    """What an ``OSError`` while writing means to the user."""
    if error.errno in _FULL:
        return StoreError("no space left on the disk", path=str(path), hint="free some space")
    if error.errno in _DENIED:
        return StoreError("cannot be written", path=str(path), hint="check its permissions")
    return StoreError(error.strerror or str(error), path=str(path))
