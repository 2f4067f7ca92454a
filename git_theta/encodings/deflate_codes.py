"""The Huffman codes of a DEFLATE stream, and the headers of blocks that say them (RFC 1951).

Sections of the RFC are named in parentheses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

WIDEST = 15
"""Bits of a code, at most."""

_FIXED, _DYNAMIC = 1, 2
_MASK = (1 << WIDEST) - 1
# 3.2.7: in this order, the lengths of the codes for the lengths of codes
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
_REPEATS = {16: (3, 2), 17: (3, 3), 18: (11, 7)}


class Codes:
    """Canonical Huffman codes (3.2.2) by the bits of each, 0 for none; the first bit is lowest."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.bits = np.array(lengths, np.uint64)
        self.words = np.zeros(self.bits.size, np.uint64)
        first = 0
        for width in range(1, WIDEST + 1):
            symbols = np.flatnonzero(self.bits == width)
            codes = np.arange(first, first + symbols.size, dtype=np.uint64)
            for bit in range(width):
                self.words[symbols] |= (codes >> np.uint64(bit) & np.uint64(1)) << np.uint64(
                    width - 1 - bit
                )
            first = first + symbols.size << 1
            if first > 2 << width:
                raise CorruptObjectError("a deflated block has more codes than there can be")

    def table(self) -> NDArray[np.uint16]:
        """Return ``symbol << 4 | bits`` of its code by the next 15 bits; 0 where there is none."""
        found = np.zeros(1 << WIDEST, np.uint16)
        for symbol in np.flatnonzero(self.bits).tolist():
            width = int(self.bits[symbol])
            found[int(self.words[symbol]) :: 1 << width] = symbol << 4 | width
        return found


class BitReader:
    """Takes bits off a stream, the lowest of each byte first."""

    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.position = 0

    def peek(self) -> int:
        """Return the next 48 bits, zeros beyond the end."""
        at = self.position >> 3
        return int.from_bytes(self.data[at : at + 7].tobytes(), "little") >> (self.position & 7)

    def take(self, count: int) -> int:
        """Return the next bits; ``CorruptObjectError`` beyond the end."""
        found = self.peek() & (1 << count) - 1
        self.position += count
        if self.position > 8 * self.data.size:
            raise CorruptObjectError("a deflated stream is cut off")
        return found

    def symbol(self, table: NDArray[np.uint16]) -> int:
        """Return the symbol of the next code."""
        found = int(table[self.peek() & _MASK])
        if not found:
            raise CorruptObjectError("a deflated stream has bits that are not a code")
        self.take(found & 15)
        return found >> 4


class Header(NamedTuple):
    """What stands before the tokens of a block."""

    is_last: bool
    literals: Codes
    distances: Codes


def read_header(reader: BitReader) -> Header:
    """Return the header of a block (3.2.3).

    Raises ``CorruptObjectError``, also for a block that is stored as it is.
    """
    is_last, kind = bool(reader.take(1)), reader.take(2)
    if kind == _FIXED:
        literals = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8
        return Header(is_last, Codes(literals), Codes([5] * 30))
    if kind != _DYNAMIC:
        raise CorruptObjectError("a deflated stream has a block that is not coded")
    count, distances, lengths = reader.take(5) + 257, reader.take(5) + 1, reader.take(4) + 4
    widths = [0] * len(_ORDER)
    for place in _ORDER[:lengths]:
        widths[place] = reader.take(3)
    table = Codes(widths).table()
    found: list[int] = []
    while len(found) < count + distances:
        symbol = reader.symbol(table)
        if symbol in _REPEATS:
            least, extra = _REPEATS[symbol]
            repeated = found[-1] if symbol == 16 and found else 0
            found += [repeated] * (least + reader.take(extra))
        else:
            found.append(symbol)
    return Header(is_last, Codes(found[:count]), Codes(found[count : count + distances]))
