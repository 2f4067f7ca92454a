"""Parts of a file as sources: some of its bytes as a file of its own, or so much and no more."""

from __future__ import annotations

from typing import overload

from git_theta.core.layout import Source
from git_theta.errors import FormatError

# Bytes that a read counts beside its own.
_PER_READ = 64
_BLOCK = 16 << 10


class Window:
    """``size`` bytes of a source from ``start``, as a source."""

    def __init__(self, source: Source, start: int, size: int) -> None:
        self._source = source
        self.start = start
        self.size = size

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``."""
        return self._source.read(self.start + offset, length)


class Metered:
    """A source of which ``most`` bytes are read: structures that are shared or nested cost again.

    Raises ``FormatError`` beyond that.
    """

    def __init__(self, source: Source, most: int) -> None:
        self._source = source
        self._left = most
        self.size = source.size

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes at ``offset``."""
        self._left -= length + _PER_READ
        if self._left < 0:
            raise FormatError("its groups and headers take more than those of any model")
        return self._source.read(offset, length)


class LazyBytes:
    """The bytes of a source, read where they are looked at."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._block = b""
        self._at = 0

    def __len__(self) -> int:
        return self._source.size

    @overload
    def __getitem__(self, key: int) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> bytes: ...

    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, int):
            if not 0 <= key < self._source.size:
                raise IndexError
            return self._around(key, key + 1)[key - self._at]
        start, stop, _ = key.indices(self._source.size)
        return self._around(start, stop)[start - self._at : stop - self._at]

    def find(self, wanted: bytes, start: int) -> int:
        """Return where ``wanted`` is next, -1 where it is not in the next 16 KiB."""
        stop = min(start + _BLOCK, self._source.size)
        found = self[start:stop].find(wanted)
        return start + found if found >= 0 else -1

    def _around(self, start: int, stop: int) -> bytes:
        if not self._at <= start <= stop <= self._at + len(self._block):
            length = min(max(_BLOCK, stop - start), self._source.size - start)
            self._at, self._block = start, self._source.read(start, length)
        return self._block
