"""Which objects are whole: each file is hashed once, and again when it was changed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from git_theta.core.messages import short_id
from git_theta.errors import CorruptObjectError
from git_theta.store.rows import Stamp

_BLOCK = 4 << 20
_NEVER = Stamp(-1, -1, -1)
_INODE_MASK = (1 << 63) - 1  # SQLite's integers are signed


class Soundness:
    """Remembers, by inode, size and modification time, which files were verified.

    A changed file is noticed; a bit that rots on the disk is not, that is for ``fsck`` and for
    every reader, who verifies what is decoded.
    """

    def __init__(self) -> None:
        self._stamps: dict[str, Stamp] = {}
        # Threads that meet one pack at once hash it once.
        self._checking = [Lock() for _ in range(16)]

    def checking(self, oid: str) -> Lock:
        """Return the lock under which ``oid`` is verified."""
        return self._checking[int(oid[0], 16)]

    def trust(self, oid: str, stamp: Stamp) -> None:
        """Take over what an earlier process has verified."""
        self._stamps.setdefault(oid, stamp)

    def note(self, oid: str, status: os.stat_result) -> None:
        """Remember a file that was verified, or written by this process."""
        self._stamps[oid] = _stamp(status)

    def forget(self, oid: str) -> None:
        """Take nothing for granted about ``oid``, whatever an earlier process has verified."""
        self._stamps[oid] = _NEVER

    def knows(self, oid: str, status: os.stat_result) -> bool:
        """Return whether the file with this ``status`` is the one that was verified."""
        return self._stamps.get(oid) == _stamp(status)

    def stamps(self, oids: Iterable[str]) -> dict[str, Stamp]:
        """Return the files of those of ``oids`` that were verified, for the index to keep."""
        found = ((oid, self._stamps.get(oid, _NEVER)) for oid in oids)
        return {oid: stamp for oid, stamp in found if stamp != _NEVER}


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_ino & _INODE_MASK, status.st_mtime_ns)


def check(file: Path, oid: str, size: int | None) -> os.stat_result:
    """Hash an object's file; its status as it was before. ``CorruptObjectError``, ``OSError``."""
    from hashlib import sha256  # loads OpenSSL: 3 ms

    digest = sha256()
    total = 0
    with file.open("rb", buffering=0) as reader:
        status = os.fstat(reader.fileno())
        while block := reader.read(_BLOCK):
            digest.update(block)
            total += len(block)
    if size is not None and total != size:
        raise corrupt(file, f"it has {total} bytes instead of {size}")
    if digest.hexdigest() != oid:
        raise corrupt(
            file, f"its bytes hash to {short_id(digest.hexdigest())} instead of {short_id(oid)}"
        )
    return status


def corrupt(file: Path, what: str) -> CorruptObjectError:
    """Return the error for a damaged object."""
    return CorruptObjectError(
        f"object is corrupt: {what}",
        path=str(file),
        hint="git theta fsck --repair  (names every checkpoint that needs it, and restores it)",
    )
