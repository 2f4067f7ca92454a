"""Encoding 1: the difference of every word from the base's (``docs/spec.md``, Delta).

Plain: one part with the differences. Narrow, where few of them are common: a part with a code of
four bits for each (``codes.py``), and a part with those that have no code of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from git_theta.encodings.codes import ESCAPE, Codes, pair, unpair
from git_theta.encodings.difference import Words, as_words, difference, fit, restore, word_size
from git_theta.errors import CorruptObjectError
from git_theta.tensor import Encoded, Geometry, Part

Bytes = NDArray[np.uint8]

_PLAIN, _NARROW = b"\0", b"\1"

# The largest share of escapes, per byte of the word. Narrow saves 20 % of a bf16 fine-tune at 1 %
# escapes (Huffman codes spend a bit on a word that did not change, half a bit where two share a
# byte), 5 % at 6 %, 2 % at 22 %; of an fp32 embedding with decayed rows, which plain codes in
# three planes that all must tell them from the others, 40 % at 10 % escapes and 9 % at 50 %.
_ESCAPES_PER_BYTE, _ESCAPES_MOST = 1 / 8, 1 / 2

_BLOCK = 1 << 17  # Bytes of each array in a block: several fit the L2 cache.
_SAMPLE_BLOCKS, _SAMPLE_WORDS = 16, 4096


class Delta:
    """Differences of words against a base of any length (see ``fit``)."""

    name = "delta"
    number = 1
    needs_base = True

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded | None:
        """The chunk as differences; ``None`` without a base."""
        if base is None or not raw.size:
            return None
        word = word_size(geometry.dtype, raw.size)
        new, old = as_words(raw, word), as_words(fit(base, raw.size), word)
        codes, escapes = Codes.choose(_sample(new, old), new.size)
        if escapes > min(_ESCAPES_MOST, _ESCAPES_PER_BYTE * word):
            return _encode_plain(new, old)
        return _encode_narrow(codes, new, old)

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """The chunk's ``length`` raw bytes; ``CorruptObjectError`` when the parts do not fit."""
        if base is None:
            raise CorruptObjectError("a delta frame has no base")
        old = as_words(fit(base, length), word_size(geometry.dtype, length))
        differences = _differences(encoded, old.dtype, old.size)
        new = np.empty(old.size, old.dtype)
        for block, found in zip(_blocks(old), differences, strict=True):
            new[block] = restore(found, old[block])
        return new.view(np.uint8)


ENCODING = Delta()


def _blocks(words: Words) -> Iterator[slice]:
    step = _BLOCK // words.itemsize
    starts = range(0, words.size, step)
    return (slice(start, min(start + step, words.size)) for start in starts)


def _sample(new: Words, old: Words) -> Words:
    """Differences in evenly spaced blocks."""
    starts = np.linspace(0, max(0, new.size - _SAMPLE_WORDS), _SAMPLE_BLOCKS).astype(np.int64)
    pieces = [slice(start, start + _SAMPLE_WORDS) for start in np.unique(starts)]
    return np.concatenate([difference(new[piece], old[piece]) for piece in pieces])


def _part(words: Words) -> Part:
    return Part(words.itemsize, words.view(np.uint8).data)


def _encode_plain(new: Words, old: Words) -> Encoded:
    differences = np.empty(new.size, new.dtype)
    for block in _blocks(new):
        differences[block] = difference(new[block], old[block])
    return Encoded(_PLAIN, (_part(differences),))


def _encode_narrow(codes: Codes, new: Words, old: Words) -> Encoded:
    pairs, escapes = [], []
    for block in _blocks(new):
        differences = difference(new[block], old[block])
        found = codes.encode(differences)
        pairs.append(pair(found))
        escapes.append(np.compress(found == ESCAPE, differences))
    parts = _part(np.concatenate(pairs)), _part(np.concatenate(escapes))
    return Encoded(_NARROW + codes.stored, parts)


def _differences(
    encoded: Encoded, words: np.dtype[np.unsignedinteger], count: int
) -> Iterator[Words]:
    """The differences block by block, whichever way they are stored."""
    sizes, form = [part.word for part in encoded.parts], encoded.params[:1]
    arrays = [np.frombuffer(part.data, np.uint8) for part in encoded.parts]
    if encoded.params == _PLAIN and sizes == [words.itemsize]:
        return _plain(arrays[0].view(words), count)
    if form == _NARROW and sizes == [1, words.itemsize]:
        codes = Codes.read(encoded.params[1:], words.itemsize)
        return _narrow(codes, arrays[0], arrays[1].view(words), count)
    raise CorruptObjectError("a delta frame has other parts than it should")


def _plain(differences: Words, count: int) -> Iterator[Words]:
    if differences.size != count:
        raise CorruptObjectError(f"a delta frame holds {differences.size} words, not {count}")
    return (differences[block] for block in _blocks(differences))


def _narrow(codes: Codes, pairs: Bytes, escapes: Words, count: int) -> Iterator[Words]:
    if pairs.size != (count + 1) // 2:
        raise CorruptObjectError(f"a delta frame holds {pairs.size} pairs for {count} words")
    step, used = _BLOCK // escapes.itemsize, 0
    for start in range(0, count, step):
        found = unpair(pairs[start // 2 : (start + step) // 2], min(step, count - start))
        wide = np.flatnonzero(found == ESCAPE)
        if wide.size > escapes.size - used:
            raise CorruptObjectError("a delta frame lacks differences")
        differences = codes.decode(found, escapes.dtype)
        differences[wide] = escapes[used : used + wide.size]
        used += wide.size
        yield differences
    if used != escapes.size:
        raise CorruptObjectError("a delta frame has differences that nothing refers to")
