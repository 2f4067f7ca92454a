"""Parts of a file as sources: some of its bytes as a file of its own, or so much and no more."""

from __future__ import annotations

from git_theta.core.layout import Source
from git_theta.errors import FormatError

# Bytes that a read counts beside its own.
_PER_READ = 64


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
