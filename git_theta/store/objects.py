"""Local objects: stored, read, verified, and kept from collections while they are in use."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from git_theta.core.files import (
    link_or_copy,
    sync_path,
)
from git_theta.core.hashes import Ref
from git_theta.core.layout import Buffer
from git_theta.core.os_errors import store_error
from git_theta.core.sharing import adjust
from git_theta.errors import (
    ChangedError,
    MissingObjectError,
    StoreError,
    ThetaError,
)
from git_theta.store.activity import Activity
from git_theta.store.arrivals import Arrivals
from git_theta.store.files import MODE, ObjectFiles, missing
from git_theta.store.journal import Journal, recover
from git_theta.store.rows import Stamp
from git_theta.store.shared import SharedStore
from git_theta.store.soundness import Soundness, check, corrupt

_BLOCK = 4 << 20


class ObjectStore(ObjectFiles):
    """The objects under ``root``, and which of them were verified and are in use.

    Safe for several threads and processes, a collection among them: what this process has stored
    or ``used`` stays until it ends.
    """

    def __init__(self, root: Path, shared: SharedStore | None = None) -> None:
        super().__init__(root)
        self.shared = shared
        self.arrivals = Arrivals()
        self._soundness = Soundness()
        self._activity = Activity(root)
        self._used: set[str] = set()
        self._journal = Journal(root, self._sync_files)
        recover(root, self._restore)

    def close(self) -> None:
        """Let collections have what this process used; git knows of it by now."""
        self._journal.close()
        self._settle()
        self._activity.end()
        self._used.clear()

    def write(self, buffers: Iterable[Buffer]) -> Ref:
        """Store an object: ``buffers`` one after another, at least one byte in all.

        They are read twice, first for their hash, which is the object's name; an iterator, which
        cannot be, is held in memory.
        Writing an object that is here and whole already costs its hash only; a damaged one is
        replaced. ``StoreError`` on a full disk or a read-only repository; nothing is left behind
        then.
        """
        return self._write(buffers, self._create_now)

    def write_behind(self, buffers: Iterable[Buffer]) -> Ref:
        """Store an object as ``write`` does, and let others wait for the disk.

        It can be read after ``sync``, which raises what was found wrong by then.
        """
        return self._write(buffers, self._create_soon)

    def _write(
        self, buffers: Iterable[Buffer], create: Callable[[str, Iterable[Buffer]], None]
    ) -> Ref:
        from hashlib import sha256  # loads OpenSSL, which reading does without: 3 ms

        pieces = list(buffers) if isinstance(buffers, Iterator) else buffers
        digest, size = sha256(), 0
        for piece in pieces:
            digest.update(piece)
            size += memoryview(piece).nbytes
        if not size:
            raise ValueError("git-lfs skips empty objects, so there are none")
        oid = digest.hexdigest()
        self._activity.begin()
        if self.use(oid, size):
            self._awaits_sync(oid)  # another process may have written it and not synced its name
        elif not self.take(oid, size):
            try:
                create(oid, pieces)
            except StoreError:
                if not self._is_unwritable():
                    raise
        return Ref(oid, size, 0, size)

    def _create_now(self, oid: str, buffers: Iterable[Buffer]) -> None:
        # Other clones take what is in a shared store: they do not know this one's journal.
        if isinstance(buffers, list) and self.shared is None:
            path = self._prepared(oid)
            with self._journal.holding(oid, buffers, path) as held:
                self._create(path if held else self._awaits_sync(oid), buffers, sync=not held)
        else:
            self._create(self._awaits_sync(oid), buffers)
        self._stored(oid)

    def _create_soon(self, oid: str, buffers: Iterable[Buffer]) -> None:
        self._create_behind(self._awaits_sync(oid), buffers, lambda: self._stored(oid))

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
            raise missing(path) from error
        except ChangedError as error:
            raise corrupt(path, "it became shorter while it was read") from error
        except OSError as error:
            raise store_error(error, path) from error

    def adopt(self, oid: str, size: int, file: Path) -> None:
        """Take a downloaded ``file`` in as object ``oid``, by a hard link where possible.

        ``CorruptObjectError`` when its size or its hash is wrong, ``MissingObjectError`` when it
        is gone.
        """
        try:
            check(file, oid, size)
            # What another program wrote may still be in memory only.
            sync_path(file)
            self._activity.begin()
            target = self._awaits_sync(oid)
            # Even over an object that is here: that one may be damaged, this one is known good.
            link_or_copy(file, target, MODE)
            with suppress(OSError):  # not the owner
                target.chmod(MODE)
                adjust(target)
            os.utime(target)
            self._stored(oid)
        except FileNotFoundError as error:
            raise missing(file) from error
        except OSError as error:
            raise store_error(error, file) from error

    def take(self, oid: str, size: int) -> bool:
        """Get an object from the shared store; false where it is not there, or not whole."""
        if self.shared is None:
            return False
        self._activity.begin()
        if not self.shared.take(oid, size, self._awaits_sync(oid)):
            return False
        self._note(oid)
        return True

    def _stored(self, oid: str) -> None:
        """Share an object that was just stored, and remember that it is whole and in use."""
        if self.shared is not None:
            self.shared.give(oid, self.path(oid))
        self._note(oid)

    def share_all(self) -> None:
        """Share every object that is here and whole, as those are that are stored from now on."""
        for oid in self.oids() if self.shared else ():
            size = self.size(oid)
            if self.shared and size and self.is_sound(oid, size):
                self.shared.give(oid, self.path(oid))

    def release(self, oids: Iterable[str]) -> None:
        """Let go of objects in the shared store that a collection has removed here."""
        if self.shared is not None:
            self.shared.release(oids)

    def verify(self, oid: str) -> None:
        """Hash the object. Raises ``CorruptObjectError`` or ``MissingObjectError``."""
        path = self.path(oid)
        self._soundness.forget(oid)
        try:
            if self._status(oid) is None:
                raise missing(path)
            self._soundness.note(oid, check(path, oid, None))
        except FileNotFoundError as error:
            raise missing(path) from error
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
        """Take over which objects earlier processes have verified.

        But for those that are read in place: they are another user's files.
        """
        for oid, stamp in stamps.items():
            if not self.path(oid).is_symlink():
                self._soundness.trust(oid, stamp)

    def stamps(self, oids: Iterable[str]) -> dict[str, Stamp]:
        """Return the files of those of ``oids`` that were verified, for the index to keep."""
        return self._soundness.stamps(oids)

    def _note(self, oid: str) -> None:
        with suppress(FileNotFoundError):
            self._soundness.note(oid, self.path(oid).stat())
        self._used.add(oid)
        self.arrivals.come(oid)

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
            os.utime(path, follow_symlinks=False)
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
            raise missing(path)
        if before and self._soundness.knows(oid, before):
            self._soundness.note(oid, after)

    def _replace(self, oid: str) -> None:
        """Put a copy in the place of a file whose time only its owner may change.

        In a shared repository he could collect it. Where that may not be, he is not waited for.
        """
        with suppress(StoreError, OSError), self.path(oid).open("rb") as file:
            self._create(self.path(oid), iter(lambda: file.read(_BLOCK), b""))
            self._note(oid)
