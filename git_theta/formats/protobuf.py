"""The fields of a Protocol Buffers message, without reading what is long.

Source: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from git_theta.core.layout import Source
from git_theta.errors import FormatError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
# Of a file; each takes 5 us. The graphs of large models have 50,000 nodes.
_MOST = 1 << 19
_BLOCK = 512
_LONGEST = 10


class Field(NamedTuple):
    """A field's number and wire type, its value if it is a varint, and where its content lies."""

    number: int
    wire: int
    value: int
    start: int
    stop: int


class Messages:
    """Reads the fields of messages in one file. Raises ``FormatError``."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = _MOST
        self._block = b""
        self._at = 0

    def fields(self, start: int, stop: int) -> Iterator[Field]:
        """Yield the fields of the message in bytes ``start`` to ``stop`` of the file."""
        position = start
        while position < stop:
            self._left -= 1
            if self._left < 0:
                raise FormatError("it has more fields than any model needs")
            tag, position = self._varint(position, stop)
            field = self._field(tag >> 3, tag & 7, position, stop)
            if not 0 < field.number < 1 << 29 or field.stop > stop:
                raise FormatError(f"it has no valid field at byte {position}")
            position = field.stop
            yield field

    def _field(self, number: int, wire: int, position: int, stop: int) -> Field:
        if wire == VARINT:
            value, end = self._varint(position, stop)
            return Field(number, wire, value, position, end)
        if wire == BYTES:
            length, position = self._varint(position, stop)
            return Field(number, wire, 0, position, position + length)
        if wire in _FIXED:
            return Field(number, wire, 0, position, position + _FIXED[wire])
        raise FormatError(f"it has a field of the unknown wire type {wire}")

    def _varint(self, position: int, stop: int) -> tuple[int, int]:
        value = 0
        for place in range(min(_LONGEST, stop - position)):
            byte = self._byte(position + place)
            value |= (byte & 127) << 7 * place
            if byte < 128:
                return value & (1 << 64) - 1, position + place + 1
        raise FormatError(f"it has no valid number at byte {position}")

    def _byte(self, position: int) -> int:
        if not self._at <= position < self._at + len(self._block):
            self._at = position
            self._block = self._source.read(position, min(_BLOCK, self._source.size - position))
        return self._block[position - self._at]

    def text(self, field: Field, most: int) -> str:
        """Return the text of a field of up to ``most`` bytes."""
        if field.wire != BYTES or field.stop - field.start > most:
            raise FormatError("it has a string that is not a name")
        data = self._source.read(field.start, field.stop - field.start)
        return data.decode("utf-8", "surrogateescape")

    def numbers(self, field: Field, most: int) -> list[int]:
        """Return one number of a repeated field, or up to ``most`` of them packed."""
        if field.wire == VARINT:
            return [field.value]
        if field.wire != BYTES or field.stop - field.start > most * _LONGEST:
            raise FormatError("it has a list that does not hold numbers")
        found, position = [], field.start
        while position < field.stop:
            value, position = self._varint(position, field.stop)
            found.append(value)
        return found
