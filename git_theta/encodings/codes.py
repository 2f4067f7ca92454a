"""Words as codes of four bits, where few different ones are common.

Codes 0 to 14 stand for the words of a table, 15 (an escape) for one that is not in it. Common are
the small differences of a 16-bit fine-tune and, in 32 bits, the few steps by which weight decay
moves the rows of an embedding that no batch has touched.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from git_theta.encodings.difference import Words
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

ESCAPE = 15
_TABLE = np.dtype("<u2")
# Larger words are not looked for, so that the lookup table stays in the L2 cache.
_LARGEST = 0xFFFE

# What a table must save: time is lost by looking words up, and its bytes in the frame.
_WORTH_SHARE, _WORTH_BYTES = 1 / 32, 2 * ESCAPE * _TABLE.itemsize


class Codes:
    """The 15 common words; ``None`` is 0 to 14, which needs no lookup and no room in a frame."""

    def __init__(self, table: NDArray[np.uint16] | None) -> None:
        self._table = table

    @classmethod
    def choose(cls, sample: Words, count: int) -> tuple[Codes, float]:
        """The codes for ``count`` words like those of ``sample``, and the share of escapes."""
        counts = np.bincount(_capped(sample), minlength=_LARGEST + 2)[: _LARGEST + 1]
        # The smallest words fill the table where there are not enough, so they are in any case.
        counted = np.union1d(np.flatnonzero(counts), np.arange(ESCAPE))
        common = counted[np.argsort(-counts[counted], kind="stable")[:ESCAPE]]
        saved = int(counts[common].sum() - counts[:ESCAPE].sum()) / sample.size
        escapes = 1 - int(counts[:ESCAPE].sum()) / sample.size
        if saved < _WORTH_SHARE or saved * count * sample.itemsize < _WORTH_BYTES:
            return cls(None), escapes
        return cls(np.sort(common).astype(_TABLE)), escapes - saved

    @classmethod
    def read(cls, stored: bytes, word: int) -> Codes:
        """The codes with the table ``stored``; ``CorruptObjectError`` if it is not one."""
        if not stored:
            return cls(None)
        if len(stored) == ESCAPE * _TABLE.itemsize:
            table = np.frombuffer(stored, _TABLE)
            if not int(table.max()) >> 8 * word:
                return cls(table)
        raise CorruptObjectError("malformed table of common differences")

    @property
    def stored(self) -> bytes:
        """The table as bytes of a frame."""
        return b"" if self._table is None else self._table.tobytes()

    def encode(self, words: Words) -> Bytes:
        """The codes of ``words``, one to a byte."""
        if self._table is None:
            return np.minimum(words, ESCAPE).astype(np.uint8)
        found: Bytes = self._lookup.take(_capped(words))
        return found

    def decode(self, codes: Bytes, words: np.dtype[np.unsignedinteger]) -> Words:
        """The words of ``codes``; any word where these are escapes."""
        if self._table is None:
            return codes.astype(words)
        return np.append(self._table, _TABLE.type(0)).astype(words).take(codes)

    @cached_property
    def _lookup(self) -> Bytes:
        lookup = np.full(_LARGEST + 2, ESCAPE, np.uint8)
        lookup[self._table] = np.arange(ESCAPE)
        return lookup


def _capped(words: Words) -> NDArray[np.intp]:
    """The words as indices, those beyond the largest of a table as one more than that."""
    limit = min(_LARGEST + 1, np.iinfo(words.dtype).max)
    capped: Words = np.minimum(words, words.dtype.type(limit))
    return capped.astype(np.intp)


def pair(codes: Bytes) -> Bytes:
    """Two codes to a byte, the first in the low half; the last half is 0 if there is no code."""
    both = np.append(codes, np.uint8(0)) if codes.size % 2 else codes
    words = both.view(np.dtype("<u2"))
    paired: Bytes = (words | words >> 4).astype(np.uint8)
    return paired


def unpair(pairs: Bytes, count: int) -> Bytes:
    """The first ``count`` codes of ``pairs``."""
    words = pairs.astype(np.dtype("<u2"))
    codes: Bytes = ((words | words << 4) & 0x0F0F).view(np.uint8)
    return codes[:count]
