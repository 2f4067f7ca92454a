"""MessagePack items by their places, without reading what is long.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from __future__ import annotations

from typing import NamedTuple

from git_theta.core.layout import Source
from git_theta.errors import FormatError

MAP, ARRAY, TEXT, BINARY, EXTENSION, INTEGER, OTHER = range(7)
# Of a file; each takes 3 us.
_MOST = 1 << 20
_BLOCK = 512
_LONGEST_HEAD = 10
# First byte: kind, bytes of the length that follows it, and whether a type follows that.
_SIZED = {
    0xC4: (BINARY, 1),
    0xC5: (BINARY, 2),
    0xC6: (BINARY, 4),
    0xC7: (EXTENSION, 1),
    0xC8: (EXTENSION, 2),
    0xC9: (EXTENSION, 4),
    0xD9: (TEXT, 1),
    0xDA: (TEXT, 2),
    0xDB: (TEXT, 4),
    0xDC: (ARRAY, 2),
    0xDD: (ARRAY, 4),
    0xDE: (MAP, 2),
    0xDF: (MAP, 4),
}
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8}
_INTEGERS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: -1, 0xD1: -2, 0xD2: -4, 0xD3: -8}


class Item(NamedTuple):
    """An item whose content is bytes ``start`` to ``stop``.

    Of a map or list, ``number`` is that of its values, which follow from ``stop`` on; of an
    integer, its value.
    """

    kind: int
    start: int
    stop: int
    number: int = 0
    extension: int = 0


class Reader:
    """Reads items of one file. Raises ``FormatError``."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = _MOST
        self._block = b""
        self._at = 0

    def item(self, position: int) -> Item:
        """Return the item that begins at ``position``."""
        self._left -= 1
        if self._left < 0:
            raise FormatError("it has more parts than any checkpoint needs")
        head = self._head(position)
        item = _item(head, position) if head else None
        if item is None or item.stop > self._source.size or len(head) < item.start - position:
            raise FormatError(f"it is cut off, or not MessagePack, at byte {position}")
        return item

    def end(self, item: Item) -> int:
        """Return where the next item begins after one that is neither map nor list."""
        if item.kind in (MAP, ARRAY):
            raise FormatError(f"a map stands at byte {item.start} where it cannot")
        return item.stop

    def text(self, item: Item, most: int) -> str:
        """Return a text of up to ``most`` bytes."""
        if item.kind != TEXT or item.stop - item.start > most:
            raise FormatError(f"there is no name at byte {item.start}")
        data = self._source.read(item.start, item.stop - item.start)
        return data.decode("utf-8", "surrogateescape")

    def _head(self, position: int) -> bytes:
        if not self._at <= position <= self._at + len(self._block) - _LONGEST_HEAD:
            self._at = position
            length = max(0, min(_BLOCK, self._source.size - position))
            self._block = self._source.read(position, length) if length else b""
        return self._block[position - self._at : position - self._at + _LONGEST_HEAD]


def _item(head: bytes, position: int) -> Item | None:
    first, start = head[0], position + 1
    if first < 0x80 or first >= 0xE0:
        return Item(INTEGER, start, start, first if first < 0x80 else first - 256)
    if first < 0xA0:
        return Item(MAP if first < 0x90 else ARRAY, start, start, first & 15)
    if first < 0xC0:
        return Item(TEXT, start, start + (first & 31))
    if first in _FIXED:
        return Item(OTHER, start, start + _FIXED[first])
    if first in _INTEGERS:
        width = _INTEGERS[first]
        value = int.from_bytes(head[1 : 1 + abs(width)], "big", signed=width < 0)
        return Item(INTEGER, start + abs(width), start + abs(width), value)
    if 0xD4 <= first <= 0xD8 and len(head) > 1:
        return Item(EXTENSION, start + 1, start + 1 + (1 << first - 0xD4), extension=head[1])
    return _sized(head, start) if first in _SIZED else None


def _sized(head: bytes, start: int) -> Item | None:
    kind, width = _SIZED[head[0]]
    size = int.from_bytes(head[1 : 1 + width], "big")
    start += width
    if kind in (MAP, ARRAY):
        return Item(kind, start, start, size)
    if kind != EXTENSION:
        return Item(kind, start, start + size)
    if len(head) < 2 + width:
        return None
    return Item(kind, start + 1, start + 1 + size, extension=head[1 + width])
