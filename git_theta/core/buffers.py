"""Large memory that is used again.

Pages that a process touches for the first time must be found and cleared by the kernel, on a
virtual machine also by its host: 64 MiB took 25 to 230 ms there, longer than hashing and encoding
them. Chunks come and go by the dozen, so their memory is kept for the next one.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Below this, malloc keeps freed memory itself.
_LEAST = 4 << 20
_STEP = 8 << 20
# Bytes that may lie idle: what two workers need for their chunks.
_IDLE = 256 << 20


class _Pool:
    """Memory by size. ``list.append`` and ``list.pop`` are atomic, so no lock is needed."""

    def __init__(self) -> None:
        self._idle: defaultdict[int, list[memoryview]] = defaultdict(list)

    def take(self, length: int) -> NDArray[np.uint8]:
        import numpy as np

        size = -(-length // _STEP) * _STEP
        memory = self._kept(size)
        if memory is None:
            memory = np.empty(size, np.uint8).data
        # Views of this array, and views of those, refer to it (not to what is below it, which is
        # no array): only when the last one is gone is the memory given out again.
        array = np.frombuffer(memory, np.uint8)
        weakref.finalize(array, self._give_back, memory).atexit = False
        return array[:length]

    def _kept(self, size: int) -> memoryview | None:
        """Idle memory of this size, or of up to four times as much: chunks differ in size."""
        for larger in sorted(self._idle):
            if size <= larger <= 4 * size:
                try:
                    return self._idle[larger].pop()
                except IndexError:
                    continue
        return None

    def _give_back(self, memory: memoryview) -> None:
        idle = sum(size * len(kept) for size, kept in list(self._idle.items()))
        if idle + len(memory) <= _IDLE:
            self._idle[len(memory)].append(memory)

    def clear(self) -> None:
        """Let go of what lies idle."""
        self._idle.clear()


_pool = _Pool()


def new_array(length: int) -> NDArray[np.uint8]:
    """``length`` bytes to write to; what is in them is undefined."""
    # Imported here: it takes 30 ms, which commands that read no tensor need not pay.
    import numpy as np

    return np.empty(length, np.uint8) if length < _LEAST else _pool.take(length)


def clear() -> None:
    """Let go of all memory that lies idle."""
    _pool.clear()
