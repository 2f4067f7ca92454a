"""Locks between processes, on files; they die with their process."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from git_theta.core.os_errors import store_error
from git_theta.core.sharing import adjust, make_folder
from git_theta.errors import LockedError

# Where locks do not work, a process is taken for alive for so long.
_ALIVE_SECONDS = 24 * 3600


@contextmanager
def exclusive_lock(path: Path, patience: float | None = None) -> Iterator[None]:
    """Hold a lock that other processes and threads wait for; it dies with its process.

    The file at ``path`` is created and stays. ``StoreError`` when it cannot be; ``LockedError``
    when another one holds it for more than ``patience`` seconds (``None``: wait for ever).
    Excludes nobody where the file system has no locks.
    """
    try:
        make_folder(path.parent)
        file = path.open("ab")
        adjust(path)
    except OSError as error:
        raise store_error(error, path) from error
    with file:
        if not lock_file(file, patience):
            raise LockedError(
                "another process holds this lock",
                path=str(path),
                hint=f"find it: fuser -v {path}",
            )
        yield


def lock_file(file: IO[bytes] | int, patience: float | None = 0) -> bool:
    """Lock an open file until it is closed; false when that takes over ``patience`` seconds."""
    deadline = None if patience is None else time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if deadline is None else fcntl.LOCK_NB))
            return True
        except BlockingIOError:
            if deadline is None or time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        except OSError:
            return True  # a file system without locks


def is_locked(path: Path) -> bool:
    """Return whether a live process holds a lock on the file at ``path``.

    Where the file system has no locks, return whether the file is younger than a day.
    """
    young = time.time() - path.stat().st_mtime < _ALIVE_SECONDS
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return young
    return False
