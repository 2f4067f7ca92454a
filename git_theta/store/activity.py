"""Commands that are at work: what they store or use again, no collection may take from them.

Between the moment when a clean filter hands a manifest to git and the moment when git's index
names it, nothing shows that its objects are needed. So each process that stores or uses objects
holds a locked file under ``active/`` until it ends; objects that are younger than the oldest of
these files stay.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from pathlib import Path
from threading import Lock

from git_theta.core.locks import is_locked, lock_file
from git_theta.core.sharing import adjust, make_folder


class Activity:
    """This process's file under ``root/active``; dies with the process, however it ends."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "active"
        self._lock = Lock()
        self._end: weakref.finalize[..., Activity] | None = None
        self._begun = False

    def begin(self) -> None:
        """Show from now on that this process is at work."""
        if self._begun:
            return
        with self._lock, suppress(OSError):  # read-only: nothing can be collected there either
            if not self._begun:
                self._show()
        self._begun = True

    def _show(self) -> None:
        make_folder(self._folder)
        file = self._folder / f"{os.getpid()}-{os.urandom(4).hex()}"
        # Locked before it has its name, so that nobody takes it for a dead one's.
        unlocked = file.with_name(f".{file.name}")
        descriptor = os.open(unlocked, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        self._end = weakref.finalize(self, _remove, descriptor, file)
        lock_file(descriptor)
        adjust(unlocked)
        unlocked.replace(file)

    def end(self) -> None:
        """Forget what this process stored: git knows of it now."""
        with self._lock:
            if self._end:
                self._end()
            self._end = None
            self._begun = False


def _remove(descriptor: int, file: Path) -> None:
    with suppress(OSError):
        file.unlink()
    os.close(descriptor)


def oldest(root: Path) -> int | None:
    """When the first of the processes at work began, in ns; removes what dead ones left."""
    moments = []
    with suppress(FileNotFoundError):
        for file in (root / "active").iterdir():
            with suppress(FileNotFoundError):
                moment = file.stat().st_mtime_ns
                if is_locked(file):
                    moments.append(moment)
                elif not file.name.startswith("."):
                    file.unlink()
    return min(moments, default=None)
