"""Bytes through open files and pipes: gathered writes, reads into buffers, what is thrown away."""

from __future__ import annotations

import fcntl
import io
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from itertools import islice
from typing import IO, BinaryIO

from git_theta.core.layout import Buffer

# Buffers that one system call takes (IOV_MAX on Linux and macOS).
_GATHERED = 1024


def write_all(file: IO[bytes], buffers: Sequence[Buffer]) -> None:
    """Write ``buffers`` one after another, without joining them where the system can gather."""
    if not hasattr(os, "writev") or not isinstance(file, (io.BufferedWriter, io.FileIO)):
        file.writelines(buffers)
        file.flush()
        return
    file.flush()
    _gather(buffers, lambda pieces, _: os.writev(file.fileno(), pieces))


def write_at(file: BinaryIO, offset: int, buffers: Sequence[Buffer]) -> None:
    """Write ``buffers`` one after another from ``offset`` on; safe for use by several threads."""
    _gather(buffers, lambda pieces, done: os.pwritev(file.fileno(), pieces, offset + done))


def _gather(
    buffers: Sequence[Buffer],
    write: Callable[[list[memoryview], int], int],
) -> None:
    """Call ``write`` with what is left, and how much is done, until all of it is written."""
    queue = deque(memoryview(buffer).cast("B") for buffer in buffers)
    done = 0
    while queue:
        written = write(list(islice(queue, _GATHERED)), done)
        done += written
        while queue and written >= len(queue[0]):
            written -= len(queue.popleft())
        if written:
            queue[0] = queue[0][written:]


def reader_into(file: IO[bytes] | io.FileIO) -> Callable[[Sequence[memoryview]], int]:
    """Return what reads once into buffers, the first one at least: how many bytes, 0 at the end."""
    if hasattr(os, "readv") and isinstance(file, io.FileIO):
        return partial(os.readv, file.fileno())

    def read(buffers: Sequence[memoryview]) -> int:
        data = file.read(len(buffers[0]))
        buffers[0][: len(data)] = data
        return len(data)

    return read


def discard(file: IO[bytes] | io.FileIO, count: int) -> int:
    """Read up to ``count`` bytes and forget them; return how many, 0 at the end.

    What a pipe holds is given back to the system, where it can be, without being copied.
    """
    if hasattr(os, "splice") and isinstance(file, io.FileIO):
        with suppress(OSError):  # not a pipe
            return os.splice(file.fileno(), _nowhere(), count)
    return reader_into(file)([memoryview(bytearray(count))])


@cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def enlarge_pipe(file: IO[bytes], size: int) -> None:
    """Let a pipe hold ``size`` bytes, where the system can; other files are left alone."""
    if not hasattr(fcntl, "F_SETPIPE_SZ"):
        return
    with suppress(OSError):  # not a pipe, not a file, or above what a user may have
        fcntl.fcntl(file.fileno(), fcntl.F_SETPIPE_SZ, size)
