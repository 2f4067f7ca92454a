"""Local objects: files named by the SHA-256 of their bytes, under ``objects/ab/<64 hex>``."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

from git_theta.core.files import (
    FileSource,
    atomic_file,
    link_or_copy,
    remove_stale,
    store_error,
    sync_path,
)
from git_theta.core.hashes import Ref, is_hex256
from git_theta.core.layout import Buffer
from git_theta.core.sharing import adjust, make_folder
from git_theta.errors import ChangedError, MissingObjectError, StoreError, ThetaError
from git_theta.store.activity import Activity
from git_theta.store.rows import Stamp
from git_theta.store.soundness import Soundness, check, corrupt
from git_theta.store.trash import Trash, entries, object_path

# Read-only, as Git's own: an object may be one file with another by a hard link, and an editor
# or script that writes to it would change both.
_MODE = 0o444
_STALE_SECONDS = 24 * 3600
_BLOCK = 4 << 20


class ObjectStore:
    """The objects under ``root``: a file with an object's name is always a whole object.

    Every write goes to a temporary file, which is synced and renamed. The renames of a command
    are made durable at once by ``sync``: call it before anything names the objects. Safe for
    several threads and processes, a collection among them: what this process has stored or
    ``used`` stays until it ends, and whoever looks for an object gets it out of the trash.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "objects"
        self._scratch = root / "tmp"
        self.trash = Trash(self._objects)
        self._lock = Lock()
        self._unsynced: set[Path] = set()
        self._started = False
        self._soundness = Soundness()
        self._activity = Activity(root)
        self._used: set[str] = set()

    def close(self) -> None:
        """Let collections have what this process used; git knows of it by now."""
        self._activity.end()
        self._used.clear()

    def path(self, oid: str) -> Path:
        """Return where object ``oid`` lies, or would."""
        return object_path(self._objects, oid)

    def size(self, oid: str) -> int | None:
        """Return the object's size in bytes, or ``None`` when it is not here.

        ``StoreError`` when the store may not be looked into.
        """
        status = self._status(oid)
        return None if status is None else status.st_size

    def _status(self, oid: str) -> os.stat_result | None:
        path = self.path(oid)
        try:
            return path.stat()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise store_error(error, path) from error
        return path.stat() if self.trash.restore(oid) else None

    def has(self, oid: str) -> bool:
        """Return whether the object is here."""
        return self.size(oid) is not None

    def write(self, buffers: Iterable[Buffer]) -> Ref:
        """Store an object: ``buffers`` one after another, at least one byte in all.

        Writing an object that is here and whole already costs its hash only; a damaged one is
        replaced. ``StoreError`` on a full disk or a read-only repository; nothing is left behind
        then.
        """
        pieces = list(buffers)
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        size = sum(memoryview(piece).nbytes for piece in pieces)
        if not size:
            raise ValueError("git-lfs skips empty objects, so there are none")
        oid = digest.hexdigest()
        # Of an object that is here too: another process may have written it and not synced yet.
        target = self._target(oid)
        if not self.use(oid, size):
            try:
                self._create(target, pieces)
            except StoreError:
                if self._is_unwritable():
                    return Ref(oid, size, 0, size)
                raise
            self._note(oid)
        return Ref(oid, size, 0, size)

    def _create(self, target: Path, pieces: Iterable[Buffer]) -> None:
        with atomic_file(target, _MODE, scratch=self._scratch, sync_name=False) as file:
            for piece in pieces:
                file.write(piece)

    def _is_unwritable(self) -> bool:
        """Return whether git cannot write any object either, so that nothing can refer to ours.

        `git status` in a read-only repository then compares what a file would become.
        """
        named = os.environ.get("GIT_OBJECT_DIRECTORY")
        objects = Path(named) if named else self.root.parent / "objects"
        effective = os.access in os.supports_effective_ids
        return objects.is_dir() and not os.access(objects, os.W_OK, effective_ids=effective)

    def read(self, ref: Ref) -> memoryview:
        """Return the bytes of ``ref``, not verified: their decoder knows their content hash.

        ``MissingObjectError`` when the object is not here, ``CorruptObjectError`` when its size
        is not what ``ref`` says.
        """
        path = self.path(ref.oid)
        try:
            with self._open(ref.oid) as source:
                if source.size != ref.size:
                    raise corrupt(path, f"it has {source.size} bytes instead of {ref.size}")
                return source.view(ref.offset, ref.length)
        except FileNotFoundError as error:
            raise _missing(path) from error
        except ChangedError as error:
            raise corrupt(path, "it became shorter while it was read") from error
        except OSError as error:
            raise store_error(error, path) from error

    def _open(self, oid: str) -> FileSource:
        try:
            return FileSource(self.path(oid))
        except FileNotFoundError:
            if not self.trash.restore(oid):
                raise
            return FileSource(self.path(oid))

    def adopt(self, oid: str, size: int, file: Path) -> None:
        """Take a downloaded ``file`` in as object ``oid``, by a hard link where possible.

        ``CorruptObjectError`` when its size or its hash is wrong, ``MissingObjectError`` when it
        is gone.
        """
        try:
            check(file, oid, size)
            # What another program wrote may still be in memory only.
            sync_path(file)
            target = self._target(oid)
            # Even over an object that is here: that one may be damaged, this one is known good.
            link_or_copy(file, target, _MODE)
            with suppress(OSError):  # not the owner
                target.chmod(_MODE)
                adjust(target)
            os.utime(target)
            self._note(oid)
        except FileNotFoundError as error:
            raise _missing(file) from error
        except OSError as error:
            raise store_error(error, file) from error

    def verify(self, oid: str) -> None:
        """Hash the object. Raises ``CorruptObjectError`` or ``MissingObjectError``."""
        path = self.path(oid)
        self._soundness.forget(oid)
        try:
            if self._status(oid) is None:
                raise _missing(path)
            self._soundness.note(oid, check(path, oid, None))
        except FileNotFoundError as error:
            raise _missing(path) from error
        except OSError as error:
            raise store_error(error, path) from error

    def is_sound(self, oid: str, size: int) -> bool:
        """Return whether the object is here, readable and whole.

        It is hashed where that has not been done since its file was last changed.
        """
        try:
            with self._soundness.checking(oid):
                status = self._status(oid)
                if status is None or status.st_size != size:
                    return False
                if not self._soundness.knows(oid, status):
                    self.verify(oid)
        except ThetaError:
            return False
        return True

    def trust(self, stamps: Mapping[str, Stamp]) -> None:
        """Take over which objects earlier processes have verified."""
        for oid, stamp in stamps.items():
            self._soundness.trust(oid, stamp)

    def stamps(self, oids: Iterable[str]) -> dict[str, Stamp]:
        """Return the files of those of ``oids`` that were verified, for the index to keep."""
        return self._soundness.stamps(oids)

    def _note(self, oid: str) -> None:
        with suppress(FileNotFoundError):
            self._soundness.note(oid, self.path(oid).stat())
        self._used.add(oid)

    def oids(self) -> Iterator[str]:
        """Yield every object that is here, in the order of their names."""
        for folder in entries(self._objects):
            names = (file.name for file in entries(folder))
            yield from (name for name in names if is_hex256(name) and name[:2] == folder.name)

    def remove(self, oid: str) -> None:
        """Delete the object; nothing happens when it is not here."""
        try:
            self.path(oid).unlink(missing_ok=True)
        except OSError as error:
            raise store_error(error, self.path(oid)) from error

    def quarantine(self, oid: str) -> Path:
        """Move a damaged object out of the way, to ``bad/``; return its new place."""
        source, target = self.path(oid), self.root / "bad" / oid
        try:
            make_folder(target.parent)
            source.replace(target)
        except FileNotFoundError as error:
            raise _missing(source) from error
        except OSError as error:
            raise store_error(error, source) from error
        return target

    def use(self, oid: str, size: int) -> bool:
        """Return whether the object is here and whole; a collection then lets it be."""
        if not self.is_sound(oid, size):
            return False
        try:
            self.touch([oid])
        except MissingObjectError:
            return False  # a collection was quicker
        return True

    def touch(self, oids: Iterable[str]) -> None:
        """Make objects that are about to be referred to look new, so that ``gc`` lets them be.

        ``MissingObjectError`` when one was removed meanwhile.
        """
        self._activity.begin()
        for oid in oids:
            with self._soundness.checking(oid):
                if oid not in self._used:
                    self._touch(oid)
                    self._used.add(oid)

    def _touch(self, oid: str) -> None:
        path = self.path(oid)
        before = self._status(oid)
        try:
            os.utime(path)
        except FileNotFoundError:
            pass
        except PermissionError:
            self._replace(oid)
        except OSError as error:
            if error.errno != errno.EROFS:  # where nobody can remove anything
                raise store_error(error, path) from error
        # It may have been moved to the trash just before its time was changed. What is here
        # afterwards, and young, no collection deletes.
        after = self._status(oid)
        if after is None:
            raise _missing(path)
        if before and self._soundness.knows(oid, before):
            self._soundness.note(oid, after)

    def _replace(self, oid: str) -> None:
        """Put a copy in the place of a file whose time only its owner may change.

        In a shared repository he could collect it. Where that may not be, he is not waited for.
        """
        with suppress(StoreError, OSError), self.path(oid).open("rb") as file:
            self._create(self.path(oid), iter(lambda: file.read(_BLOCK), b""))
            self._note(oid)

    def sync(self) -> None:
        """Make the names of all objects written so far durable.

        One ``fsync`` per folder instead of one per object: 2,000 objects touch 256 folders.
        """
        with self._lock:
            folders, self._unsynced = self._unsynced, set()
        if not folders:
            return
        for folder in [*sorted(folders), self._objects]:
            with suppress(FileNotFoundError):  # emptied and removed since
                sync_path(folder)

    def _target(self, oid: str) -> Path:
        """Return the path of an object to be written, whose name ``sync`` makes durable."""
        self._activity.begin()
        path = self.path(oid)
        with self._lock:
            first, self._started = not self._started, True
            self._unsynced.add(path.parent)
        if first:
            remove_stale(self._scratch, _STALE_SECONDS)
        return path


def _missing(path: Path) -> MissingObjectError:
    return MissingObjectError("object is not here", path=str(path), hint="git theta fetch")
