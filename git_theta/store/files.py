"""The files of objects, named by the SHA-256 of their bytes, under ``objects/ab/<64 hex>``."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock, Semaphore
from typing import IO

from git_theta.core.files import (
    FileSource,
    atomic_file,
    remove_stale,
    sync_path,
)
from git_theta.core.hashes import is_hex256
from git_theta.core.layout import Buffer
from git_theta.core.os_errors import store_error
from git_theta.core.sharing import make_folder
from git_theta.core.streams import write_all
from git_theta.errors import CorruptObjectError, MissingObjectError
from git_theta.store.soundness import check
from git_theta.store.trash import Trash, entries, object_path

# Read-only, as Git's own: an object may be one file with another by a hard link, and an editor
# or script that writes to it would change both.
MODE = 0o444
_STALE_SECONDS = 24 * 3600
# Calls of fsync at once: the file system makes one write to its journal of many. 16 folders took
# 56 ms one after another, 2 ms so.
_SYNCING = 16
# Files that wait for their sync are open; a process may often have 1,024 open files.
_WAITING = 4 * _SYNCING


class ObjectFiles:
    """The files under ``root``: one with an object's name is always a whole object.

    Every write goes to a temporary file, which is synced and renamed. The renames of a command
    are made durable at once by ``sync``: call it before anything names the objects. Whoever looks
    for an object gets it out of the trash. Safe for several threads and processes.

    Files may be synced and named behind the back of who writes them, whose thread has better to do
    than to wait for the disk: ``sync`` waits for these too.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "objects"
        self._scratch = root / "tmp"
        self.trash = Trash(self._objects)
        self._lock = Lock()
        self._unsynced: set[Path] = set()
        self._behind: list[Future[None]] = []
        self._syncing: ThreadPoolExecutor | None = None
        self._room = Semaphore(_WAITING)
        # Folders whose names are durable.
        self._durable: set[str] = set()
        self._started = False

    def path(self, oid: str) -> Path:
        """Return where object ``oid`` lies, or would."""
        return object_path(self._objects, oid)

    def size(self, oid: str) -> int | None:
        """Return the object's size in bytes, or ``None`` when it is not here.

        ``StoreError`` when the store may not be looked into.
        """
        status = self._status(oid)
        return None if status is None else status.st_size

    def has(self, oid: str) -> bool:
        """Return whether the object is here."""
        return self.size(oid) is not None

    def oids(self) -> Iterator[str]:
        """Yield every object that is here, in the order of their names."""
        for folder in entries(self._objects):
            names = (file.name for file in entries(folder))
            yield from (name for name in names if is_hex256(name) and name[:2] == folder.name)

    def quarantine(self, oid: str) -> Path:
        """Move a damaged object out of the way, to ``bad/``; return its new place."""
        source, target = self.path(oid), self.root / "bad" / oid
        try:
            make_folder(target.parent)
            source.replace(target)
        except FileNotFoundError as error:
            raise missing(source) from error
        except OSError as error:
            raise store_error(error, source) from error
        return target

    def scratch_file(self) -> IO[bytes]:
        """Return an empty file without a name, which is gone when it is closed."""
        from tempfile import TemporaryFile  # seldom needed: takes 3 ms to import

        make_folder(self._scratch)
        return TemporaryFile(dir=self._scratch)

    def sync(self) -> None:
        """Make all objects written so far durable, and their names; raise what writing one raised.

        One ``fsync`` per folder instead of one per object: 2,000 objects touch 256 folders. The
        names of folders, which seldom are new, are not synced each time.
        """
        with self._lock:
            behind, self._behind = self._behind, []
        _finish(behind)
        with self._lock:
            folders, self._unsynced = self._unsynced, set()
        self._sync_names(folders)

    def _sync_names(self, folders: set[Path]) -> None:
        self._sync_all(folders)
        with self._lock:
            is_new = not {folder.name for folder in folders} <= self._durable
        if is_new:
            with suppress(FileNotFoundError):
                # Listed before: those are durable afterwards. Paths of 256 took 4 ms.
                there = os.listdir(self._objects)  # noqa: PTH208
                sync_path(self._objects)
                with self._lock:
                    self._durable.update(there)

    def _sync_files(self, files: Sequence[Path]) -> None:
        """Make files of objects and their names durable; one that is gone need not be."""
        self._sync_all(files)
        self._sync_names({file.parent for file in files})

    def _sync_all(self, paths: Collection[Path]) -> None:
        if len(paths) < 2:
            _sync(paths)
            return
        # A task for each thread: to hand out one for each path woke threads 30 times a file.
        rows = [*paths]
        threads = range(min(len(rows), _SYNCING))
        _finish([self._pool().submit(_sync, rows[first::_SYNCING]) for first in threads])

    def _status(self, oid: str) -> os.stat_result | None:
        path = self.path(oid)
        try:
            return path.stat()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise store_error(error, path) from error
        return path.stat() if self.trash.restore(oid) else None

    def _open(self, oid: str) -> FileSource:
        try:
            return FileSource(self.path(oid))
        except FileNotFoundError:
            if not self.trash.restore(oid):
                raise
            return FileSource(self.path(oid))

    def _awaits_sync(self, oid: str) -> Path:
        """Return the path of an object to be written, whose name ``sync`` makes durable."""
        path = self._prepared(oid)
        with self._lock:
            self._unsynced.add(path.parent)
        return path

    def _prepared(self, oid: str) -> Path:
        """Return the path of an object to be written."""
        path = self.path(oid)
        is_new = not path.parent.is_dir()
        with self._lock:
            first, self._started = not self._started, True
            if is_new:
                self._durable.discard(path.parent.name)
        if first:
            remove_stale(self._scratch, _STALE_SECONDS)
        return path

    def _create(self, target: Path, pieces: Iterable[Buffer], sync: bool = True) -> None:
        self._start(target, pieces, sync).close()

    def _create_behind(
        self, target: Path, pieces: Iterable[Buffer], done: Callable[[], None]
    ) -> None:
        """Write an object that gets its name later, by ``sync`` at the latest; then ``done()``."""
        self._room.acquire()
        try:
            written = self._start(target, pieces)
        except BaseException:
            self._room.release()
            raise

        def finish() -> None:
            try:
                written.close()
            finally:
                self._room.release()
            with self._lock:  # a sync meanwhile may have been too early for this name
                self._unsynced.add(target.parent)
            done()

        behind = self._pool().submit(finish)
        with self._lock:
            self._behind.append(behind)

    def _start(self, target: Path, pieces: Iterable[Buffer], sync: bool = True) -> ExitStack:
        """Write an object's bytes; closing what is returned syncs and names them."""
        with ExitStack() as stack:
            file = stack.enter_context(
                atomic_file(target, MODE, scratch=self._scratch, sync_content=sync, sync_name=False)
            )
            if isinstance(pieces, list):
                write_all(file, pieces)  # a dozen small frames in one call
            else:
                for piece in pieces:
                    file.write(piece)
            return stack.pop_all()

    def _restore(self, oid: str, content: bytes) -> None:
        """Make an object durable that a process noted in its journal before it died."""
        path = self.path(oid)
        try:
            check(path, oid, len(content))
            sync_path(path)
        except (CorruptObjectError, FileNotFoundError):
            self._create(path, [content])
        sync_path(path.parent)
        sync_path(path.parent.parent)

    def _pool(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._syncing is None:
                self._syncing = ThreadPoolExecutor(_SYNCING, thread_name_prefix="git-theta-sync")
            return self._syncing

    def _settle(self) -> None:
        """Wait for what is written behind, whatever becomes of it: nobody asks for it any more."""
        with self._lock:
            self._behind = []
            pool, self._syncing = self._syncing, None
        if pool:
            pool.shutdown()


def _finish(running: Sequence[Future[None]]) -> None:
    """Wait for all, then raise what the first of them that failed has raised."""
    wait(running)
    for each in running:
        each.result()


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):  # removed since: a collection, an empty folder
            sync_path(path)


def missing(path: Path) -> MissingObjectError:
    """Return the error for an object that is not here."""
    return MissingObjectError("object is missing locally", path=str(path), hint="git theta fetch")
