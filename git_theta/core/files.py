"""Files of a POSIX system: positioned reads, durable writes, links.

Linux is tested, macOS is not ruled out. What differs between them (``os.pread``, ``fcntl`` or the
like) is called here, in ``streams``, ``locks``, ``file_watch`` and ``system`` alone.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from git_theta.core.buffers import new_buffer
from git_theta.core.file_watch import FileWatch
from git_theta.core.os_errors import AGAIN, store_error
from git_theta.core.sharing import adjust, make_folder
from git_theta.errors import ChangedError, StoreError

# A new file: never one that is there already.
_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY


class FileSource:
    """A regular file read by position, safe for use by several threads.

    Positioned reads rather than a memory map: a file that is truncated while it is mapped kills
    the process, here it is a ``ChangedError``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Opening a pipe may never end, and reading a device neither.
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise StoreError("it is not a regular file", path=str(path))
        self._file: BinaryIO = path.open("rb", buffering=0)
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes at ``offset``; raise ``ChangedError`` if the file is shorter."""
        data = _pread(self._file, offset, length)
        if len(data) != length:
            raise ChangedError(
                "the file became shorter while it was read",
                path=str(self._path),
                hint=f"{AGAIN} when nothing writes to it",
            )
        return data

    def view(self, offset: int, length: int) -> memoryview:
        """Return the same as ``read``, for long runs of bytes that need not be ``bytes``."""
        buffer = new_buffer(length)
        done = 0
        while done < length:
            count = os.preadv(self._file.fileno(), [buffer[done:]], offset + done)
            if not count:
                self.read(offset, length)  # raises
            done += count
        return buffer

    def watch(self, since: int | None) -> FileWatch:
        """Return a watch over the file, whose bytes are read from ``since`` (ns) on."""
        return FileWatch(self._file, since)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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


@contextmanager
def atomic_file(
    target: Path,
    mode: int = 0o666,
    *,
    scratch: Path | None = None,
    aside: Path | None = None,
    sync_content: bool = True,
    sync_name: bool = True,
) -> Iterator[BinaryIO]:
    """Write a file that appears whole, synced and under its name, or not at all.

    The temporary file lies in ``scratch`` (on the same file system; the target's folder by
    default) and is removed on any failure. It is moved to ``aside`` at once where it can be: what
    a killed process leaves in the work tree, `git add .` would add. The process's umask is taken
    from ``mode``, as for any new file. With ``sync_name=False`` the caller makes the name durable
    by ``sync_path``, once for many files; with ``sync_content=False`` a power cut may leave it
    empty, which is for files that can be made again. ``OSError`` becomes a ``StoreError`` that
    says what to do.
    """
    temporary = (scratch or target.parent) / f".tmp-{os.getpid()}-{os.urandom(8).hex()}"
    try:
        for folder in {temporary.parent, target.parent}:
            make_folder(folder)
        with os.fdopen(os.open(temporary, _NEW_FILE, mode), "wb") as file:
            adjust(temporary)
            temporary = _moved(temporary, aside) if aside else temporary
            yield file
            file.flush()
            if sync_content:
                os.fsync(file.fileno())
        temporary.replace(target)
        if sync_name:
            sync_path(target.parent)
    except OSError as error:
        raise store_error(error, target) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _moved(file: Path, folder: Path) -> Path:
    """Move a file to ``folder`` and return where it is: there, if both are on one file system."""
    target = folder / file.name
    try:
        make_folder(folder)
        file.rename(target)
    except OSError:
        return file
    return target


def remove_stale(folder: Path, age: float) -> None:
    """Remove what killed processes left in ``folder``, which holds temporary files only.

    A file that has not been written to for ``age`` seconds is nobody's any more.
    """
    limit = time.time() - age
    with suppress(OSError):
        for file in folder.iterdir():
            with suppress(OSError):
                if file.stat().st_mtime < limit:
                    file.unlink()


def sync_path(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_data(file: BinaryIO) -> None:
    """Make bytes durable that were written over others: a file's length and blocks are the same."""
    getattr(os, "fdatasync", os.fsync)(file.fileno())  # macOS has the one only


def link_or_copy(source: Path, target: Path, mode: int = 0o666) -> None:
    """Make ``target`` a hard link to ``source``, replacing what is there.

    Where links are not possible, ``target`` becomes a copy with ``mode``. Either way it appears
    whole. Raises ``FileNotFoundError`` when ``source`` is gone, ``StoreError`` when it cannot be
    read or ``target`` not be written.
    """
    temporary = target.parent / f".tmp-{os.getpid()}-{os.urandom(8).hex()}"
    try:
        # A link to a symbolic link would be one more symbolic link.
        source = source.resolve(strict=True)
        make_folder(target.parent)
        os.link(source, temporary)
        temporary.replace(target)
    except FileNotFoundError:
        raise
    except OSError:
        _copy(source, target, mode)
    finally:
        # Renaming one link of a file over another of the same file does nothing.
        with suppress(OSError):
            temporary.unlink()


def _copy(source: Path, target: Path, mode: int) -> None:
    try:
        reader = source.open("rb")
    except PermissionError as error:
        raise store_error(error, source) from error
    import shutil  # seldom needed: takes 1 ms to import

    with reader, atomic_file(target, mode) as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)


def read_regular(path: Path, limit: int, *, follow: bool = False) -> bytes:
    """Return the bytes of a regular file; ``ValueError`` says why ``path`` is not to be read.

    For files whose names strangers know: a symbolic link may lead out of the repository, and a
    device or a pipe never ends. Links are followed with ``follow``. Raises ``OSError`` too.
    """
    if not follow and path.is_symlink():
        raise ValueError("it is a symbolic link, not a file")
    # Opening a pipe that nobody writes to would wait for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with open(os.open(path, flags), "rb") as file:  # noqa: PTH123
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit:,} bytes")
    return data
