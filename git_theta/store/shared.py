"""One folder of objects for many clones: each object lies there once (``theta.sharedStore``).

A clone keeps a name of its own for every object that it needs, below its own ``objects``: a hard
link where the file is the user's own, else a copy that shares its blocks (reflink) where the file
system can make one, else a symbolic link: it is read in place. So a collection of one clone takes
its own names away and no others (docs/decisions/0026-shared-store.md).

Other users' files are not trusted: each is hashed before it is taken, and one that is read in place
again by every process. Who reads in place says so first, by an empty file below ``clones``.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from git_theta.core.files import atomic_file, link_or_copy, sync_path
from git_theta.core.hashes import is_hex256
from git_theta.core.messages import as_typed
from git_theta.core.sharing import adjust, make_folder, share
from git_theta.errors import ThetaError
from git_theta.store.soundness import check
from git_theta.store.trash import Trash, entries, object_path

_LOG = logging.getLogger(__name__)

_MODE = 0o444
_FICLONE = 0x40049409  # ioctl_ficlone(2)


class SharedStore:
    """The shared store in ``folder``, as the clone whose own store is at ``root`` sees it."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self._root = root
        self._objects = folder / "objects"
        self._trash = Trash(self._objects)
        self._warned = False
        self._registering = Lock()
        with suppress(OSError):
            mode = folder.stat().st_mode
            word = "all" if mode & stat.S_IWOTH else "group" if mode & stat.S_IWGRP else None
            share(folder, word)

    def take(self, oid: str, size: int, own: Path) -> bool:
        """Put the shared object at ``own``; false where there is none, or it is damaged."""
        source = object_path(self._objects, oid)
        try:
            if not (source.exists() or self._trash.restore(oid)):
                return False
            status = source.lstat()
            # Anybody who may write there may put a pipe there, or a link to a file of this user.
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                return False
            make_folder(own.parent)
            is_mine = status.st_uid == os.geteuid()
            if is_mine and self._link(source, own, oid, size):
                return True
            return self._clone_blocks(source, own, oid, size) or self._refer(source, own, oid, size)
        except (ThetaError, FileNotFoundError):  # damaged, or a collection was quicker
            return False
        except OSError as error:
            self._warn(error)
            return False

    def give(self, oid: str, own: Path) -> None:
        """Share an object that is at ``own``, whole; what is there already takes its place."""
        shared = object_path(self._objects, oid)
        try:
            size = own.stat().st_size
            if shared.exists() and own.samefile(shared):
                return
            if self.take(oid, size, own):
                return
            self._make_folder(shared.parent)
            link_or_copy(own, shared, _MODE)
            adjust(shared)
            sync_path(shared.parent)
            if not own.samefile(shared):
                self.take(oid, size, own)
        except (ThetaError, OSError) as error:
            self._warn(error)

    def release(self, oids: Iterable[str]) -> None:
        """Say that this clone reads these objects in place no longer."""
        folder = self._known_claims()
        for oid in oids:
            with suppress(OSError):
                if folder:
                    (folder / oid).unlink()

    def collect(self, grace: float, *, dry_run: bool = False) -> dict[str, int]:
        """Remove the objects that no clone has and nobody used for ``grace`` seconds.

        Returns them, oid to bytes. Whoever links one meanwhile has it; whoever is about to read one
        in place has said so first, or finds it in the trash.
        """
        moment, claimed, gone = time.time() - grace, self._claimed(), dict[str, int]()
        for oid in self._oids():
            status = self._trash.stat(oid)
            if not status or oid in claimed or status.st_nlink > 1 or status.st_mtime >= moment:
                continue
            with suppress(ThetaError):  # somebody else's, who has not allowed that
                if dry_run or self._remove(oid):
                    gone[oid] = status.st_size
        return gone

    def _remove(self, oid: str) -> bool:
        self._trash.discard(oid)
        try:
            if oid not in self._claimed([oid]):
                return self._trash.destroy(oid)
        except BaseException:
            self._trash.restore(oid)
            raise
        self._trash.restore(oid)
        return False

    def _oids(self) -> list[str]:
        names = (file.name for folder in entries(self._objects) for file in entries(folder))
        return sorted({*filter(is_hex256, names), *self._trash.oids()})

    # --- three ways to have an object ------------------------------------------------------------

    def _link(self, source: Path, own: Path, oid: str, size: int) -> bool:
        temporary = _beside(own)
        try:
            os.link(source, temporary, follow_symlinks=False)
            check(
                temporary, oid, size
            )  # the file that will be used, whatever the name leads to now
            os.utime(temporary)  # a collection of this clone takes it for one that was just stored
            temporary.replace(own)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _clone_blocks(self, source: Path, own: Path, oid: str, size: int) -> bool:
        temporary = _beside(own)
        try:
            with source.open("rb") as reader, temporary.open("xb") as writer:
                fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
            check(temporary, oid, size)
            temporary.chmod(_MODE)
            sync_path(temporary)
            temporary.replace(own)
        except OSError:  # another file system, or one that cannot
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _refer(self, source: Path, own: Path, oid: str, size: int) -> bool:
        with self._registering:
            claims = self._claims()
        (claims / oid).touch()
        sync_path(claims)
        # Said first, then looked: a collection has moved it away before, or leaves it.
        if not (source.exists() or self._trash.restore(oid)):
            return False
        check(source, oid, size)
        temporary = _beside(own)
        try:
            temporary.symlink_to(source.absolute())
            temporary.replace(own)
        finally:
            temporary.unlink(missing_ok=True)
        return True

    # --- who reads in place ----------------------------------------------------------------------

    def _claimed(self, oids: Iterable[str] | None = None) -> set[str]:
        """Return what is read in place by any clone, or which of ``oids``."""
        folders = entries(self.folder / "clones")
        if oids is None:
            return {file.name for folder in folders for file in entries(folder)}
        return {oid for oid in oids if any((folder / oid).exists() for folder in folders)}

    def _known_claims(self) -> Path | None:
        """Return this clone's folder of claims; ``None`` without one, or in a copy of a clone."""
        try:
            name, place = self._note.read_text("utf-8").split("\n", 1)
        except (OSError, ValueError):
            return None
        folder = self.folder / "clones" / name
        return folder if place == self._place and folder.is_dir() else None

    def _claims(self) -> Path:
        """Return the same, made where it is not there: with claims of all that is read in place."""
        if known := self._known_claims():
            return known
        name = os.urandom(16).hex()
        folder = self.folder / "clones" / name
        self._make_folder(folder.parent)
        folder.mkdir()
        folder.chmod(0o755 & stat.S_IMODE(self.folder.stat().st_mode) | 0o700)
        with atomic_file(folder / "clone") as file:
            file.write(f"{os.uname().nodename}\n{self._root}\n".encode())
        for entry in (file for each in entries(self._root / "objects") for file in entries(each)):
            if entry.is_symlink() and is_hex256(entry.name):
                (folder / entry.name).touch()
        with atomic_file(self._note) as file:
            file.write(f"{name}\n{self._place}".encode())
        return folder

    @property
    def _note(self) -> Path:
        return self._root / "shared-store"

    @property
    def _place(self) -> str:
        return f"{self.folder}\n{self._root}"

    def _make_folder(self, folder: Path) -> None:
        """Make a folder that has the modes of the whole store, whatever the umask is."""
        if not folder.is_dir() and folder != self.folder:
            self._make_folder(folder.parent)
            with suppress(FileExistsError):
                folder.mkdir()
                folder.chmod(stat.S_IMODE(self.folder.stat().st_mode))

    def _warn(self, error: ThetaError | OSError) -> None:
        if not self._warned:
            self._warned = True
            reason = error.message if isinstance(error, ThetaError) else error.strerror
            # Not made by itself: it may be on a file server that is not mounted now.
            hint = (
                ""
                if self.folder.is_dir()
                else f"; to begin one: mkdir -p {as_typed(str(self.folder))}"
            )
            _LOG.warning(
                "theta.sharedStore: %s: objects are kept in this clone alone: %s%s",
                self.folder,
                reason,
                hint,
            )


def _beside(own: Path) -> Path:
    return own.parent / f".tmp-{os.getpid()}-{os.urandom(8).hex()}"
