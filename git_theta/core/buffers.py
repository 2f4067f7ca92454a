"""Large memory that is used again.

Pages that a process touches for the first time must be found and cleared by the kernel, on a
virtual machine also by its host: 64 MiB took 25 to 230 ms there, longer than hashing and encoding
them. Chunks come and go by the dozen, so their memory is kept for the next one.
"""

from __future__ import annotations

import mmap
import weakref
from collections import defaultdict
from contextlib import suppress

# Below this, malloc keeps freed memory itself.
LEAST = 4 << 20
_STEP = 8 << 20
# Bytes that may lie idle: what two workers need for their chunks.
_IDLE = 256 << 20


class _Pool:
    """Memory by size. ``list.append`` and ``list.pop`` are atomic, so no lock is needed."""

    def __init__(self) -> None:
        self._idle: defaultdict[int, list[mmap.mmap]] = defaultdict(list)

    def take(self, length: int) -> memoryview:
        # Imported here: it takes 2 ms, which commands that read no tensor need not pay.
        from ctypes import c_char

        size = -(-length // _STEP) * _STEP
        memory = self._kept(size) or _mapped(size)
        # Views of this object, and views and arrays of those, refer to it (those of a mapping would
        # refer to that): only when the last one is gone is the memory given out again.
        lent = (c_char * len(memory)).from_buffer(memory)
        weakref.finalize(lent, self._give_back, memory).atexit = False
        return memoryview(lent).cast("B")[:length]

    def _kept(self, size: int) -> mmap.mmap | None:
        """Idle memory of this size, or of up to four times as much: chunks differ in size."""
        for larger in sorted(self._idle):
            if size <= larger <= 4 * size:
                try:
                    return self._idle[larger].pop()
                except IndexError:
                    continue
        return None

    def _give_back(self, memory: mmap.mmap) -> None:
        idle = sum(size * len(kept) for size, kept in list(self._idle.items()))
        if idle + len(memory) <= _IDLE:
            self._idle[len(memory)].append(memory)

    def clear(self) -> None:
        """Let go of what lies idle."""
        self._idle.clear()


def _mapped(size: int) -> mmap.mmap:
    """Return fresh memory of the process's own, in pages as large as the system has."""
    try:
        memory = mmap.mmap(-1, size, access=mmap.ACCESS_COPY)
    except OSError as error:  # which elsewhere means a file
        raise MemoryError(f"there are no {size:,} bytes of memory left") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


_pool = _Pool()


def new_buffer(length: int) -> memoryview:
    """``length`` bytes to write to; what is in them is undefined."""
    return memoryview(bytearray(length)) if length < LEAST else _pool.take(length)


def clear() -> None:
    """Let go of all memory that lies idle."""
    _pool.clear()
