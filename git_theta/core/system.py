"""The machine and its processes: processors, GPUs, memory, disks, and what started this one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

from git_theta.core import buffers

# NVIDIA's, AMD's, and those of either under Windows' Linux.
_GPU_DEVICES = tuple(map(Path, ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")))


# SYNC_FILE_RANGE_WRITE
_WRITEBACK = 2

# A file system in memory, where a sync costs nothing.
_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - files in it get names that nobody can guess


def memory_folder() -> Path | None:
    """Return a folder for small temporary files that lies in memory, if the system has one."""
    usable = _MEMORY_FOLDER.is_dir() and os.access(_MEMORY_FOLDER, os.W_OK | os.X_OK)
    return _MEMORY_FOLDER if usable else None


def cpu_count() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def may_have_gpu() -> bool:
    """Tell whether torch could find a GPU here: on Linux a driver makes one of these devices."""
    return sys.platform != "linux" or any(device.exists() for device in _GPU_DEVICES)


def release_memory() -> None:
    """Give memory that lies idle back to the system, before something large is put into memory.

    Of ours that is up to 256 MiB; the C library's heap kept 400 MB after a pass over a model, until
    glibc was asked to trim it.
    """
    # Imported here: it costs a filter 5 ms, and merges alone need it.
    import ctypes

    buffers.clear()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def begin_writeback(file: BinaryIO, offset: int, length: int) -> None:
    """Let the system begin to bring bytes that were written to the disk, without waiting for it.

    ext4 does so for all of a file that is renamed over another one, and the rename waits until the
    last is on its way: 0.36 s for 1 GB, in which nothing else happens. Does nothing where that
    cannot be asked for.
    """
    if begin := _sync_file_range():
        begin(file.fileno(), offset, length, _WRITEBACK)


@cache
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    # Imported here: it takes 2 ms, which commands that write no checkpoint need not pay.
    from ctypes import CDLL, c_int, c_int64, c_uint

    found = getattr(CDLL(None), "sync_file_range", None)
    if found is not None:  # of Linux
        found.argtypes, found.restype = [c_int, c_int64, c_int64, c_uint], c_int
    return found


def ancestors() -> Iterator[list[str]]:
    """Yield the command lines of the processes above this one, the closest first.

    None where the system does not show them in ``/proc``.
    """
    process = os.getppid()
    while process > 1:
        folder = Path("/proc") / str(process)
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")[:-1]
            # The name in parentheses may hold anything; what follows it are numbers.
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return
        yield [os.fsdecode(word) for word in words]
        process = int(fields[1])
