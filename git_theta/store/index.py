"""The index of local frames: content hash to places, in SQLite. A cache, never the truth.

The database may be deleted at any time; ``git theta fsck --reindex`` fills it again. A row
may outlive its object, so a reader asks the object store before it relies on one.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TypeVar

from git_theta.core.hashes import Ref
from git_theta.core.locks import exclusive_lock
from git_theta.core.os_errors import store_error
from git_theta.core.sharing import adjust
from git_theta.errors import LockedError, StoreError
from git_theta.store import rows
from git_theta.store.gathered import GatheredRows
from git_theta.store.rows import Location, Stamp

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

# Another process writes for milliseconds; one that holds the file longer is stopped or hangs.
_PATIENCE = 2.0
# After a failure the index is left alone for so long: a command of many files waits once.
_REST = 60.0
_LOCKED = ("locked", "busy")


class Index:
    """The database ``root/index.db``. Safe for several threads and processes at once.

    A cache: where it cannot be read it is empty, where it cannot be written nothing is noted; a
    warning in the log, once, is all that comes of it. A damaged file, one of another version, or
    a folder in its place is moved to ``index.db.aside``, and a new one begun.
    """

    def __init__(self, root: Path) -> None:
        self._path = root / "index.db"
        self._guard = root / "index.lock"
        self._lock = Lock()
        self._connection: sqlite3.Connection | None = None
        self._inode: int | None = None
        self._rests_until = {"read": 0.0, "written": 0.0}
        self._warned = False
        self._gathered: GatheredRows | None = None

    def gather(self) -> None:
        """Write what is added from now on together, once a second and at the end.

        This process finds it at once. One that is killed loses some: its objects are made anew.
        """
        self._gathered = self._gathered or GatheredRows()

    def find(self, content: str) -> list[Location]:
        """Return where content ``content`` is stored: shortest chain first, then smallest frame."""
        return self.find_many([content]).get(content, [])

    def find_many(self, contents: Iterable[str]) -> dict[str, list[Location]]:
        """``find`` for many hashes at once (10 us each instead of 17); absent ones are left out."""
        asked = list(contents)
        waiting = self._gathered.find(asked) if self._gathered else {}
        keys = [bytes.fromhex(content) for content in asked if content not in waiting]
        found: dict[str, list[Location]] = {}
        if keys:
            found = self._read(lambda of: rows.select(of, keys), found)
        return found | waiting

    def knows(self, content: str, ref: Ref) -> bool:
        """Return whether the frame at ``ref`` was verified to hold ``content``."""
        return any(row.ref == ref for row in self.find(content))

    def similar(self, sketch: Sequence[int], most: int) -> list[str]:
        """Return the hashes of up to ``most`` contents noted with numbers of ``sketch``."""
        self._write_gathered()
        return self._read(lambda of: rows.similar(of, sketch, most), [])

    def stamps(self, oids: Iterable[str]) -> dict[str, Stamp]:
        """Return the files of objects as they were when the objects were verified."""
        asked = list(oids)
        waiting = self._gathered.stamps(asked) if self._gathered else {}
        keys = [bytes.fromhex(oid) for oid in asked if oid not in waiting]
        found: dict[str, Stamp] = {}
        if keys:
            found = self._read(lambda of: rows.stamps(of, keys), found)
        return found | waiting

    def add(self, locations: Iterable[Location], stamps: Mapping[str, Stamp] | None = None) -> None:
        """Note frames, and objects, that have been verified, in one transaction."""
        if self._gathered is None:
            self._write(list(locations), stamps or {})
        elif self._gathered.add(locations, stamps or {}):
            self._write_gathered()

    def forget(self, oids: Iterable[str]) -> None:
        """Drop every row of these objects."""
        self._write_gathered()
        gone = [(bytes.fromhex(oid),) for oid in oids]
        if gone:
            self._try("written", lambda to: rows.delete(to, gone), None, create=False)

    def rebuild(
        self, locations: Iterable[Location], stamps: Mapping[str, Stamp] | None = None
    ) -> None:
        """Replace everything by ``locations``; others see all of the old or all of the new.

        ``StoreError`` where that cannot be.
        """
        self._write_gathered()
        new = list(locations)
        self._run(lambda to: rows.insert(to, new, stamps or {}, clear=True) if to else None)

    def close(self) -> None:
        """Close the database; the next call opens it again."""
        self._write_gathered()
        with self._lock:
            self._close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, new: Sequence[Location], stamps: Mapping[str, Stamp]) -> None:
        if new or stamps:
            self._try("written", lambda to: rows.insert(to, new, stamps), None)

    def _write_gathered(self) -> None:
        if self._gathered:
            self._write(*self._gathered.take())

    def _read(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        return self._try("read", work, otherwise, create=False)

    def _try(
        self, how: str, work: Callable[[sqlite3.Connection], T], otherwise: T, create: bool = True
    ) -> T:
        if time.monotonic() < self._rests_until[how]:
            return otherwise
        try:
            return self._run(lambda to: work(to) if to else otherwise, create)
        except StoreError as error:
            self._give_up(how, error)
            return otherwise

    def _give_up(self, how: str, error: StoreError) -> None:
        until = time.monotonic() + _REST
        for kind in self._rests_until if isinstance(error, LockedError) else (how,):
            self._rests_until[kind] = until
        # Who may only read the repository can do nothing about it: 4 of 4 reading commands warned.
        if not self._warned and (how == "read" or _is_writable(self._path.parent)):
            self._warned = True
            words = f"{error.path}: {error.message} ({error.hint})"
            _LOG.warning("the index cannot be %s, which costs time only: %s", how, words)

    def _run(self, work: Callable[[sqlite3.Connection | None], T], create: bool = True) -> T:
        try:
            with self._lock:
                try:
                    return work(self._open(create))
                except sqlite3.DatabaseError as error:
                    if not _is_damage(error):
                        raise
                    self._quarantine()
                    return work(self._open(create))
        except OSError as error:
            raise store_error(error, self._path) from error
        except sqlite3.Error as error:
            kind = LockedError if any(word in str(error) for word in _LOCKED) else StoreError
            raise kind(str(error), path=str(self._path), hint=_hint(kind)) from error

    def _open(self, create: bool) -> sqlite3.Connection | None:
        if self._connection is None and (create or self._path.exists()):
            with self._guarded():
                if self._path.is_dir():
                    self._move_aside()
                self._inode = self._path.stat().st_ino if self._path.exists() else None
                connection = sqlite3.connect(
                    self._path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
                )
                try:
                    adjust(self._path)  # which its journal takes over
                    rows.prepare(connection)
                except BaseException:
                    connection.close()
                    raise
                self._inode = self._path.stat().st_ino
                self._connection = connection
        return self._connection

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Keep others from moving the file aside, where this process may take the lock at all."""
        with ExitStack() as stack:
            try:
                stack.enter_context(exclusive_lock(self._guard, patience=_PATIENCE))
            except LockedError:
                raise
            except StoreError:
                pass  # read-only: nothing is moved there
            yield

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _quarantine(self) -> None:
        self._close()
        with exclusive_lock(self._guard, patience=_PATIENCE):
            # Another process may have put a sound one in its place already.
            if self._path.exists() and self._path.stat().st_ino == self._inode:
                self._move_aside()

    def _move_aside(self) -> None:
        aside = self._path.with_name("index.db.aside")
        if aside.is_dir() or (self._path.is_dir() and aside.exists()):
            aside = self._path.with_name(f"index.db.aside-{time.time_ns()}")
        self._path.replace(aside)
        for suffix in ("-journal", "-wal", "-shm"):
            self._path.with_name(f"index.db{suffix}").unlink(missing_ok=True)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    # "Malformed" and "not a database" are plain DatabaseErrors; busy, full or read-only are not.
    return type(error) is sqlite3.DatabaseError or "no such" in str(error)


def _is_writable(folder: Path) -> bool:
    """Return whether this process may write into the folder at all."""
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _hint(kind: type[StoreError]) -> str:
    if kind is LockedError:
        return "find the process that holds it: fuser -v .git/theta/index.db"
    return "check the disk's space and the folder's permissions"
