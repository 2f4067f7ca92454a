"""Local objects: files named by the SHA-256 of their bytes, under ``objects/ab/<64 hex>``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock

from git_theta.core.hashes import Ref, is_hex256
from git_theta.core.layout import Buffer
from git_theta.core.system import (
    FileSource,
    atomic_file,
    link_or_copy,
    remove_stale,
    store_error,
    sync_path,
)
from git_theta.errors import ChangedError, CorruptObjectError, MissingObjectError

# Read-only, as Git's own: an object may be one file with another by a hard link, and an editor
# or script that writes to it would change both.
_MODE = 0o444
_STALE_SECONDS = 24 * 3600
_BLOCK = 4 << 20


class ObjectStore:
    """The objects under ``root``: a file with an object's name is always a whole object.

    Every write goes to a temporary file, which is synced and renamed. The renames of a command
    are made durable at once by ``sync``: call it before anything names the objects. Safe for
    several threads and processes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._objects = root / "objects"
        self._scratch = root / "tmp"
        self._lock = Lock()
        self._unsynced: set[Path] = set()
        self._started = False

    def path(self, oid: str) -> Path:
        """Where object ``oid`` lies, or would."""
        return self._objects / oid[:2] / oid

    def size(self, oid: str) -> int | None:
        """The object's size in bytes, or ``None`` when it is not here.

        ``StoreError`` when the store may not be looked into.
        """
        path = self.path(oid)
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise store_error(error, path) from error

    def has(self, oid: str) -> bool:
        """Whether the object is here."""
        return self.size(oid) is not None

    def write(self, buffers: Iterable[Buffer]) -> Ref:
        """Store an object: ``buffers`` one after another, at least one byte in all.

        Writing an object that is here already costs its hash only. ``StoreError`` on a full disk
        or a read-only repository; nothing is left behind then.
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
        if not self._is_here(oid, size):
            with atomic_file(target, _MODE, scratch=self._scratch, sync_name=False) as file:
                for piece in pieces:
                    file.write(piece)
        return Ref(oid, size, 0, size)

    def read(self, ref: Ref) -> memoryview:
        """The bytes that ``ref`` names, not verified: their decoder knows their content hash.

        ``MissingObjectError`` when the object is not here, ``CorruptObjectError`` when its size
        is not what ``ref`` says.
        """
        path = self.path(ref.oid)
        try:
            with FileSource(path) as source:
                if source.size != ref.size:
                    raise _corrupt(path, f"it has {source.size} bytes instead of {ref.size}")
                return source.view(ref.offset, ref.length)
        except FileNotFoundError as error:
            raise _missing(path) from error
        except ChangedError as error:
            raise _corrupt(path, "it became shorter while it was read") from error
        except OSError as error:
            raise store_error(error, path) from error

    def adopt(self, oid: str, size: int, file: Path) -> None:
        """Take a downloaded ``file`` in as object ``oid``, by a hard link where possible.

        ``CorruptObjectError`` when its size or its hash is wrong, ``MissingObjectError`` when it
        is gone.
        """
        try:
            _check(file, oid, size)
            # What another program wrote may still be in memory only.
            sync_path(file)
            target = self._target(oid)
            # Even over an object that is here: that one may be damaged, this one is known good.
            link_or_copy(file, target, _MODE)
            with suppress(OSError):  # not the owner
                target.chmod(_MODE)
        except FileNotFoundError as error:
            raise _missing(file) from error
        except OSError as error:
            raise store_error(error, file) from error

    def verify(self, oid: str) -> None:
        """Hash the object. Raises ``CorruptObjectError`` or ``MissingObjectError``."""
        path = self.path(oid)
        try:
            _check(path, oid, None)
        except FileNotFoundError as error:
            raise _missing(path) from error
        except OSError as error:
            raise store_error(error, path) from error

    def link_out(self, oid: str, target: Path) -> None:
        """Make the object appear at ``target``, by a hard link where possible."""
        try:
            link_or_copy(self.path(oid), target)
        except FileNotFoundError as error:
            raise _missing(self.path(oid)) from error

    def oids(self) -> Iterator[str]:
        """Every object that is here, in the order of their names."""
        for folder in self._list(self._objects):
            names = (file.name for file in self._list(folder))
            yield from (name for name in names if is_hex256(name) and name[:2] == folder.name)

    def _list(self, folder: Path) -> list[Path]:
        try:
            return sorted(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise store_error(error, folder) from error

    def remove(self, oid: str) -> None:
        """Delete the object; nothing happens when it is not here."""
        try:
            self.path(oid).unlink(missing_ok=True)
        except OSError as error:
            raise store_error(error, self.path(oid)) from error

    def quarantine(self, oid: str) -> Path:
        """Move a damaged object out of the way, to ``bad/``; gives its new place."""
        source, target = self.path(oid), self.root / "bad" / oid
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.replace(target)
        except FileNotFoundError as error:
            raise _missing(source) from error
        except OSError as error:
            raise store_error(error, source) from error
        return target

    def touch(self, oids: Iterable[str]) -> None:
        """Make objects that are about to be referred to look new, so that ``gc`` lets them be.

        ``MissingObjectError`` when one was removed meanwhile.
        """
        for oid in oids:
            try:
                os.utime(self.path(oid))
            except FileNotFoundError:
                raise _missing(self.path(oid)) from None
            except PermissionError:
                # In a shared repository somebody else's, who alone may change its time.
                if not self.has(oid):
                    raise _missing(self.path(oid)) from None
            except OSError as error:
                raise store_error(error, self.path(oid)) from error

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
        """The path of an object about to be written, whose name ``sync`` is to make durable."""
        path = self.path(oid)
        with self._lock:
            first, self._started = not self._started, True
            self._unsynced.add(path.parent)
        if first:
            remove_stale(self._scratch, _STALE_SECONDS)
        return path

    def _is_here(self, oid: str, size: int) -> bool:
        if self.size(oid) != size:
            return False
        # As Git does for loose objects: what is used again is young again, so that a prune that
        # spares young objects does not take it from under this command.
        with suppress(OSError):
            os.utime(self.path(oid))
        return True


def _check(path: Path, oid: str, size: int | None) -> None:
    digest = hashlib.sha256()
    total = 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            total += len(block)
    if size is not None and total != size:
        raise _corrupt(path, f"it has {total} bytes instead of {size}")
    if digest.hexdigest() != oid:
        raise _corrupt(path, f"its bytes hash to {digest.hexdigest()} instead of {oid}")


def _corrupt(path: Path, what: str) -> CorruptObjectError:
    return CorruptObjectError(
        f"object is corrupt: {what}",
        path=str(path),
        hint="git theta fsck  (names every checkpoint that needs it)",
    )


def _missing(path: Path) -> MissingObjectError:
    return MissingObjectError("object is not here", path=str(path), hint="git theta fetch")
