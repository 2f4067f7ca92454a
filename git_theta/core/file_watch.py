"""Find out whether a file may have changed while it was read.

Times alone do not tell. A page of a memory map (``numpy.memmap``, safetensors saved in place) that
was written to once is written to again without a trace in ``mtime`` until the system has flushed
it: of 20 files that were added while another process saved them so, 20 were stored torn. What does
tell is whether anybody could write to the file; then its bytes must be compared.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

_SECOND = 1_000_000_000
# Linux stamps files with the time of the last tick: up to 10 ms ago. Some file systems know
# seconds only, FAT two of them.
_TICK = 20_000_000
_COARSE = 2 * _SECOND


class FileWatch:
    """Watches an open file from now on.

    ``since`` (ns) is when its bytes were read first at the earliest, and may lie in the past;
    ``None`` where nobody else wrote to it between then and now.
    """

    def __init__(self, file: BinaryIO, since: int | None) -> None:
        self._file = file
        self._before = os.fstat(file.fileno())
        recent = since is not None and _is_recent(self._before, since)
        self._suspect = recent or has_writer(file) is not False

    def suspects(self) -> bool:
        """Return whether what was read until now may not be what the file was at any moment."""
        return self._suspect or self._stamp_differs() or has_writer(self._file) is not False

    def is_open_for_writing(self) -> bool:
        """Return whether somebody surely has it open."""
        return has_writer(self._file) is True

    def size(self) -> int:
        """Return the size of the file now, in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def _stamp_differs(self) -> bool:
        now, before = os.fstat(self._file.fileno()), self._before
        # The inode is the same, for the file was kept open: one that is replaced whole while it
        # is read does no harm.
        return (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (
            before.st_size,
            before.st_mtime_ns,
            before.st_ctime_ns,
        )


def _is_recent(status: os.stat_result, since: int) -> bool:
    """Return whether the file was written to after ``since``, for all that its time says."""
    precision = _TICK if status.st_mtime_ns % _SECOND else _COARSE
    return status.st_mtime_ns >= since - precision


def has_writer(file: BinaryIO) -> bool | None:
    """Return whether any process has the file, opened to read, open or mapped for writing.

    ``None`` where the system does not say: to others than its owner, on most network file
    systems, on systems other than Linux.
    """
    refused = _take_lease(file)
    if refused is False:
        _end_lease(file)
    return refused


@contextmanager
def writers_held_off(file: BinaryIO) -> Iterator[bool]:
    """Let whoever opens ``file`` to write wait until the end, which must come soon.

    Yields whether that is so: not where somebody has it open, or the system cannot do it.
    """
    alone = _take_lease(file) is False
    try:
        yield alone
    finally:
        if alone:
            _end_lease(file)


def _take_lease(file: BinaryIO) -> bool | None:
    """Take a lease to read, which is refused while anybody could write (fcntl(2)).

    Returns whether it was; ``None`` where there are none. Who opens the file to write until it is
    returned waits, and we are sent a signal: one that is ignored unless somebody asked for it.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        fcntl.fcntl(file.fileno(), fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def _end_lease(file: BinaryIO) -> None:
    with suppress(OSError):
        fcntl.fcntl(file.fileno(), fcntl.F_SETLEASE, fcntl.F_UNLCK)
