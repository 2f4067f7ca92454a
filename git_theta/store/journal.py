"""A journal of small objects, which makes each durable by one write into a file that is there.

A file of its own takes two syncs of 1 to 4 ms, its bytes' and its folder's, and git is given the
manifest of each of 400 small files before it sends the next. So they are written twice: first
here, synced; then as files, which are synced together when the journal is full or its process
ends. Whoever opens the store after a power cut finds here what the files may have lost.
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from git_theta.core.files import sync_data, sync_path
from git_theta.core.layout import Buffer
from git_theta.core.locks import is_locked, lock_file
from git_theta.core.sharing import adjust, make_folder
from git_theta.core.streams import write_at
from git_theta.errors import StoreError

LARGEST = 256 << 10
"""Bytes of an object that is worth writing twice."""

# Bytes of the file, which is as long from the beginning: syncing a write that makes it longer, or
# its first write to a block, takes twice as long (0.18 ms, and 0.10).
_SIZE = 4 << 20
# Objects before a journal is begun, which takes as long as making as many durable without.
_FEW = 6
_RECORD = struct.Struct("<8sQ32s")
_MAGIC = b"GTHJ\0\0\0\1"
_PATIENCE = 1.0


class Journal:
    """This process's file under ``root/journal``; safe for use by several threads.

    ``settle`` makes the object files at some paths durable, with their names.
    """

    def __init__(self, root: Path, settle: Callable[[Sequence[Path]], None]) -> None:
        self._folder = root / "journal"
        self._settle = settle
        self._lock = Lock()
        self._before = _FEW
        self._is_usable = True
        self._path: Path | None = None
        self._file: BinaryIO | None = None
        self._end = 0
        self._files: list[Path] = []

    @contextmanager
    def holding(self, oid: str, pieces: Sequence[Buffer], target: Path) -> Iterator[bool]:
        """Make the bytes of an object durable, whose file at ``target`` the caller then writes.

        Yields whether they are, so that the file need not be synced: not where they are too many or
        of the first few objects, or no journal can be kept.
        """
        with self._lock:
            held = self._hold(oid, pieces)
            yield held
            if held:
                self._files.append(target)

    def _hold(self, oid: str, pieces: Sequence[Buffer]) -> bool:
        size = sum(memoryview(piece).nbytes for piece in pieces)
        if size > LARGEST or self._before:
            self._before = max(0, self._before - 1)
            return False
        try:
            if self._is_usable:
                self._write(_RECORD.pack(_MAGIC, size, bytes.fromhex(oid)), pieces, size)
        except OSError:  # no room, or not writable: that is told of the object's own file
            self._is_usable = False
        return self._is_usable

    def _write(self, head: bytes, pieces: Sequence[Buffer], size: int) -> None:
        file = self._file or self._begin()
        if self._end + len(head) + size > _SIZE:
            self._empty()
        write_at(file, self._end, [head, *pieces])
        sync_data(file)
        self._end += len(head) + size

    def _begin(self) -> BinaryIO:
        make_folder(self._folder)
        path = self._folder / f"{os.getpid()}-{os.urandom(4).hex()}"
        # Locked before it has its name, so that nobody takes it for a dead one's.
        unnamed = path.with_name(f".{path.name}")
        file = unnamed.open("xb", buffering=0)
        try:
            if not lock_file(file.fileno()):
                raise BlockingIOError("another process takes it for a dead one's")
            adjust(unnamed)
            write_at(file, 0, [bytes(_SIZE)])
            os.fsync(file.fileno())
            unnamed.replace(path)
            sync_path(self._folder)
            sync_path(self._folder.parent)
        except BaseException:
            file.close()
            unnamed.unlink(missing_ok=True)
            raise
        self._path, self._file = path, file
        weakref.finalize(self, file.close)  # a store that is not closed leaves it to be recovered
        return file

    def _empty(self) -> None:
        """Make the files durable; the journal may be written over then."""
        self._settle(self._files)
        self._files, self._end = [], 0

    def close(self) -> None:
        """Make the files durable, and remove the journal; where that fails, it stays for others."""
        with self._lock:
            file, self._file, self._before = self._file, None, _FEW
            if file is None or self._path is None:
                return
            with file, suppress(OSError):
                self._empty()
                self._path.unlink(missing_ok=True)


def recover(root: Path, restore: Callable[[str, bytes], None]) -> None:
    """Hand to ``restore`` each object in the journals of processes that are dead, by its oid.

    A journal is removed after that, or left for others where ``restore`` cannot write.
    """
    with suppress(OSError):  # seldom one is there
        for name in os.listdir(root / "journal"):  # noqa: PTH208 - asked by every command
            with suppress(OSError, StoreError):
                _recover(root / "journal" / name, restore)


def _recover(path: Path, restore: Callable[[str, bytes], None]) -> None:
    if is_locked(path):
        return
    with path.open("rb") as file:
        if not lock_file(file, _PATIENCE):
            return
        for oid, content in _records(file):
            restore(oid, content)
        path.unlink(missing_ok=True)


def _records(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yield what was written, up to a record that is torn, or of which a newer one took a part."""
    from hashlib import sha256  # loads OpenSSL: 3 ms

    while len(head := file.read(_RECORD.size)) == _RECORD.size:
        magic, size, oid = _RECORD.unpack(head)
        if magic != _MAGIC or not 0 < size <= LARGEST:
            return
        content = file.read(size)
        if sha256(content).digest() != oid:
            return
        yield oid.hex(), content
