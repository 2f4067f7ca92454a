"""Differences as they are stored, written and read in order, as many at a time as one likes.

Plain: one part with the differences. Narrow, where few of them are common: a part with a code of
four bits for each (``codes.py``), and a part with those that have no code of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from git_theta.core.buffers import new_array
from git_theta.core.layout import Part
from git_theta.encodings.codes import ESCAPE, Codes, pair, unpair
from git_theta.encodings.difference import Words
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

PLAIN, NARROW = b"\0", b"\1"

# The largest share of escapes, per byte of the word. Narrow saves 20 % of a bf16 fine-tune at 1 %
# escapes (Huffman codes spend a bit on a word that did not change, half a bit where two share a
# byte), 5 % at 6 %, 2 % at 22 %; of an fp32 embedding with decayed rows, which plain codes in
# three planes that all must tell them from the others, 40 % at 10 % escapes and 9 % at 50 %.
_ESCAPES_PER_BYTE, _ESCAPES_MOST = 1 / 8, 1 / 2


class Writer(Protocol):
    """Takes differences in order."""

    def add(self, differences: Words) -> None:
        """The next ones."""
        ...

    def finish(self) -> tuple[bytes, tuple[Part, ...]]:
        """Params and parts, when all were added."""
        ...


class Reader(Protocol):
    """Gives differences in order."""

    def take(self, count: int) -> Words:
        """The next ``count``; ``CorruptObjectError`` where the parts do not hold them."""
        ...

    def finish(self) -> None:
        """``CorruptObjectError`` where anything is left."""
        ...


def open_writer(sample: Words, count: int) -> Writer:
    """For ``count`` differences like those of ``sample``, the storage that suits them."""
    codes, escapes = Codes.choose(sample, count)
    if escapes > min(_ESCAPES_MOST, _ESCAPES_PER_BYTE * sample.itemsize):
        return _PlainWriter(count, sample.dtype)
    return _NarrowWriter(codes, count, sample.dtype)


def open_reader(
    params: bytes, parts: Sequence[Part], words: np.dtype[np.unsignedinteger]
) -> Reader:
    """For differences of such words; ``CorruptObjectError`` where params and parts hold others."""
    sizes, form = [part.word for part in parts], params[:1]
    arrays = [np.frombuffer(part.data, np.uint8) for part in parts]
    if params == PLAIN and sizes == [words.itemsize]:
        return _PlainReader(arrays[0].view(words))
    if form == NARROW and sizes == [1, words.itemsize]:
        codes = Codes.read(params[1:], words.itemsize)
        return _NarrowReader(codes, arrays[0], arrays[1].view(words))
    raise CorruptObjectError("a delta frame has other parts than it should")


def parts_of(params: bytes) -> int:
    """How many parts such ``params`` have."""
    return 2 if params[:1] == NARROW else 1


def _part(words: Words) -> Part:
    return Part(words.itemsize, words.view(np.uint8).data)


class _PlainWriter:
    def __init__(self, count: int, words: np.dtype[np.unsignedinteger]) -> None:
        self._differences = new_array(count * words.itemsize).view(words)
        self._used = 0

    def add(self, differences: Words) -> None:
        self._differences[self._used : self._used + differences.size] = differences
        self._used += differences.size

    def finish(self) -> tuple[bytes, tuple[Part, ...]]:
        return PLAIN, (_part(self._differences),)


class _PlainReader:
    def __init__(self, differences: Words) -> None:
        self._rest = differences

    def take(self, count: int) -> Words:
        taken, self._rest = self._rest[:count], self._rest[count:]
        if taken.size < count:
            raise CorruptObjectError("a delta frame lacks differences")
        return taken

    def finish(self) -> None:
        if self._rest.size:
            raise CorruptObjectError(f"a delta frame has {self._rest.size} differences too many")


class _NarrowWriter:
    def __init__(self, codes: Codes, count: int, words: np.dtype[np.unsignedinteger]) -> None:
        self._codes = codes
        self._pairs = new_array((count + 1) // 2)
        self._used = 0
        self._single = np.empty(0, np.uint8)
        """A code whose byte is not full yet."""
        self._escapes = [np.empty(0, words)]

    def add(self, differences: Words) -> None:
        found = self._codes.encode(differences)
        self._escapes.append(differences.take(np.flatnonzero(found == ESCAPE)))
        if self._single.size:
            found = np.concatenate([self._single, found])
        whole = found.size & ~1
        self._put(pair(found[:whole]))
        self._single = found[whole:]

    def finish(self) -> tuple[bytes, tuple[Part, ...]]:
        self._put(pair(self._single))
        parts = _part(self._pairs), _part(np.concatenate(self._escapes))
        return NARROW + self._codes.stored, parts

    def _put(self, pairs: Bytes) -> None:
        self._pairs[self._used : self._used + pairs.size] = pairs
        self._used += pairs.size


class _NarrowReader:
    def __init__(self, codes: Codes, pairs: Bytes, escapes: Words) -> None:
        self._codes = codes
        self._pairs = pairs
        self._used = 0
        """Codes, two to a pair."""
        self._escapes = escapes

    def take(self, count: int) -> Words:
        first, start = self._used // 2, self._used % 2
        self._used += count
        pairs = self._pairs[first : (self._used + 1) // 2]
        found = unpair(pairs, start + count)[start:]
        differences = self._codes.decode(found, self._escapes.dtype)
        wide = np.flatnonzero(found == ESCAPE)
        if found.size < count or wide.size > self._escapes.size:
            raise CorruptObjectError("a delta frame lacks differences")
        differences[wide] = self._escapes[: wide.size]
        self._escapes = self._escapes[wide.size :]
        return differences

    def finish(self) -> None:
        if self._pairs.size != (self._used + 1) // 2 or self._escapes.size:
            raise CorruptObjectError("a delta frame has differences that nothing refers to")
