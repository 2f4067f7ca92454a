"""Encoding 1: the difference of every word from the base's (``docs/spec.md``, Delta).

Plain: one part with the differences. Narrow, where nearly all differences fit four bits: a part
with two of them to a byte, the first in the low half, and a part with the differences that do not
fit, for which 15 stands in the first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from git_theta.encodings.difference import Words, WordType, fit
from git_theta.errors import CorruptObjectError
from git_theta.tensor import Encoded, Geometry, Part

Bytes = NDArray[np.uint8]

_PLAIN, _NARROW = b"\0", b"\1"
_ESCAPE = 15

# Huffman codes spend a bit on a word that did not change, half a bit where two share a byte: 5 %
# smaller at 3 % escapes, 20 % at 1 % (bf16 fine-tunes), 2 % at 6 % escapes, then nothing.
_ESCAPES_SHARE = 1 / 16

_BLOCK = 1 << 17  # Bytes of each array in a block: several fit the L2 cache.
_SAMPLE_BLOCKS, _SAMPLE_WORDS = 16, 4096


class Delta:
    """Differences of order-mapped integers against a base of any length (see ``fit``)."""

    name = "delta"
    number = 1
    needs_base = True

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded | None:
        """The chunk as differences; ``None`` without a base."""
        if base is None:
            return None
        kind = WordType.of(geometry.dtype, raw.size)
        new, old = kind.words(raw), kind.words(fit(base, raw.size))
        if _fits_narrow(kind, new, old):
            return _encode_narrow(kind, new, old)
        return _encode_plain(kind, new, old)

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """The chunk's ``length`` raw bytes; ``CorruptObjectError`` when the parts do not fit."""
        if base is None:
            raise CorruptObjectError("a delta frame has no base")
        kind = WordType.of(geometry.dtype, length)
        old = kind.words(fit(base, length))
        differences = _differences(kind, encoded, old.size)
        new = np.empty(old.size, old.dtype)
        for block, difference in zip(_blocks(kind, old.size), differences, strict=True):
            new[block] = kind.restore(difference, old[block])
        return new.view(np.uint8)


ENCODING = Delta()


def _blocks(kind: WordType, count: int) -> Iterator[slice]:
    step = _BLOCK // kind.size
    return (slice(start, start + step) for start in range(0, count, step))


def _encode_plain(kind: WordType, new: Words, old: Words) -> Encoded:
    differences = np.empty(new.size, new.dtype)
    for block in _blocks(kind, new.size):
        differences[block] = kind.difference(new[block], old[block])
    return Encoded(_PLAIN, (Part(kind.size, differences.view(np.uint8).data),))


def _fits_narrow(kind: WordType, new: Words, old: Words) -> bool:
    """Whether few differences need more than four bits, judged by evenly spaced blocks."""
    starts = np.linspace(0, max(0, new.size - _SAMPLE_WORDS), _SAMPLE_BLOCKS).astype(np.int64)
    pieces = [slice(start, start + _SAMPLE_WORDS) for start in np.unique(starts)]
    escapes = sum(
        np.count_nonzero(kind.difference(new[piece], old[piece]) >= _ESCAPE) for piece in pieces
    )
    return bool(escapes <= _ESCAPES_SHARE * sum(new[piece].size for piece in pieces))


def _encode_narrow(kind: WordType, new: Words, old: Words) -> Encoded:
    pairs, escapes = np.zeros((new.size + 1) // 2, np.uint8), []
    for block in _blocks(kind, new.size):
        difference = kind.difference(new[block], old[block])
        halves = np.minimum(difference, _ESCAPE).astype(np.uint8)
        escapes.append(np.compress(halves == _ESCAPE, difference))
        start = block.start // 2
        pairs[start : start + (halves.size + 1) // 2] = _pair(halves)
    wide = np.concatenate(escapes) if escapes else new
    return Encoded(_NARROW, (Part(1, pairs.data), Part(kind.size, wide.view(np.uint8).data)))


def _pair(halves: Bytes) -> Bytes:
    """Two numbers below 16 to a byte, the first in the low half."""
    both = np.append(halves, np.uint8(0)) if halves.size % 2 else halves
    words = both.view(np.dtype("<u2"))
    paired: Bytes = (words | words >> 4).astype(np.uint8)
    return paired


def _unpair(pairs: Bytes, count: int) -> Bytes:
    words = pairs.astype(np.dtype("<u2"))
    halves: Bytes = ((words | words << 4) & 0x0F0F).view(np.uint8)
    return halves[:count]


def _differences(kind: WordType, encoded: Encoded, count: int) -> Iterator[Words]:
    """The differences block by block, whichever way they are stored."""
    words = [part.word for part in encoded.parts]
    if encoded.params == _PLAIN and words == [kind.size]:
        return _plain(kind, _words(kind, encoded.parts[0]), count)
    if encoded.params == _NARROW and words == [1, kind.size]:
        pairs = np.frombuffer(encoded.parts[0].data, np.uint8)
        return _narrow(kind, pairs, _words(kind, encoded.parts[1]), count)
    raise CorruptObjectError("a delta frame has other parts than it should")


def _words(kind: WordType, part: Part) -> Words:
    return kind.words(np.frombuffer(part.data, np.uint8))


def _plain(kind: WordType, differences: Words, count: int) -> Iterator[Words]:
    if differences.size != count:
        raise CorruptObjectError(f"a delta frame holds {differences.size} words, not {count}")
    for block in _blocks(kind, count):
        yield differences[block]


def _narrow(kind: WordType, pairs: Bytes, escapes: Words, count: int) -> Iterator[Words]:
    if pairs.size != (count + 1) // 2:
        raise CorruptObjectError(f"a delta frame holds {pairs.size} pairs for {count} words")
    used = 0
    for block in _blocks(kind, count):
        halves = _unpair(
            pairs[block.start // 2 : block.stop // 2], min(block.stop, count) - block.start
        )
        wide = np.flatnonzero(halves == _ESCAPE)
        if wide.size > escapes.size - used:
            raise CorruptObjectError("a delta frame lacks differences")
        difference = halves.astype(escapes.dtype)
        difference[wide] = escapes[used : used + wide.size]
        used += wide.size
        yield difference
    if used != escapes.size:
        raise CorruptObjectError("a delta frame has differences that nothing refers to")
