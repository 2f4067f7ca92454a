"""What an error of the operating system means to the user, and what to do about it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from git_theta.errors import StoreError

AGAIN = "run the command again"
"""What a hint says where that is what helps."""

_FULL = ("no space left on the disk", f"free some space, then {AGAIN}")
_DENIED = ("permission denied", "check its owner and permissions: ls -ld")
_MEANING: dict[int, tuple[str, str | None]] = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: ("the file would be larger than is allowed", "check: ulimit -f"),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: ("the file system is read-only", "remount it writable, or use another clone"),
}


def store_error(error: OSError, path: Path) -> StoreError:
    """Return what an ``OSError`` while writing means to the user."""
    message, hint = _MEANING.get(error.errno or 0, (error.strerror or str(error), None))
    return StoreError(message, path=str(path), hint=hint)


def of_the_system(error: OSError) -> StoreError | None:
    """Return what an error means to the user that is no defect: of disks and permissions."""
    if error.errno not in (*_MEANING, errno.EIO):
        return None
    name = error.filename
    return store_error(error, Path(os.fsdecode(name) if isinstance(name, (str, bytes)) else "."))
