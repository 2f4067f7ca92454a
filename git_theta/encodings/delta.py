"""Encoding 1: the difference of every word from the base's (``docs/spec.md``, Delta).

In one stream (``streams.py``), or in two: one for the words whose base is a float of small
magnitude, one for the others. Training moves weights by about the same, whatever their size; in
steps between neighbouring floats that is much for the small ones and little for the large.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta.core.buffers import new_array
from git_theta.core.layout import Encoded, Geometry
from git_theta.encodings.difference import Words, as_words, difference, fit, restore, word_size
from git_theta.encodings.streams import Reader, Writer, open_reader, open_writer, parts_of
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

_SPLIT = b"\2"

# Two streams, the first with the 30 % smallest, save 7 to 20 % of a bf16 or fp16 fine-tune (2 % of
# an fp32 one, which is not worth a third more time). There the differences of the small ones are
# longer, by 0.3 bits on average where 7 % of the weights changed, by 2.5 where nearly all did. In
# embeddings of which some rows changed they are as long, and nothing is saved.
_SMALL = 0.3
_LONGER = 0.2
_SPLIT_WORD = 2
# Of a sample, one in so many words shows it well enough.
_SPARSELY = 4
# Words: the second stream's headers take 60 bytes.
_SPLIT_LEAST = 1 << 13

_BLOCK = 1 << 17  # Bytes of each array in a block: several fit the L2 cache.
_SAMPLE_BLOCKS, _SAMPLE_WORDS, _SAMPLE_SHARE = 16, 4096, 8
_SAMPLE_LEAST = 512


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
        sample_old = _sample(old)
        sample = difference(_sample(new), sample_old)
        may_split = geometry.dtype.kind == "float" and word == _SPLIT_WORD
        split = _find_split(sample, sample_old) if may_split and new.size >= _SPLIT_LEAST else None
        if split is None:
            return _encode_stream(open_writer(sample, new.size), new, old)
        return _encode_split(split, sample, sample_old, new, old)

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """The chunk's ``length`` raw bytes; ``CorruptObjectError`` when the parts do not fit."""
        if base is None:
            raise CorruptObjectError("a delta frame has no base")
        old = as_words(fit(base, length), word_size(geometry.dtype, length))
        new = new_array(length).view(old.dtype)
        for block, found in zip(_blocks(old), _differences(encoded, old), strict=True):
            new[block] = restore(found, old[block])
        return new.view(np.uint8)


ENCODING = Delta()


@dataclass(frozen=True, slots=True)
class Split:
    """Tells the words whose magnitude (all bits but the highest) is below ``limit``."""

    limit: int

    def mask(self, words: Words) -> NDArray[np.bool_]:
        """Which of ``words`` are small."""
        small: NDArray[np.bool_] = _magnitudes(words) < self.limit
        return small

    def count(self, words: Words) -> int:
        """How many of ``words`` are small."""
        return sum(int(np.count_nonzero(self.mask(words[block]))) for block in _blocks(words))


def _magnitudes(words: Words) -> Words:
    magnitudes: Words = words & words.dtype.type((1 << 8 * words.itemsize - 1) - 1)
    return magnitudes


def _blocks(words: Words) -> Iterator[slice]:
    step = _BLOCK // words.itemsize
    starts = range(0, words.size, step)
    return (slice(start, min(start + step, words.size)) for start in starts)


def _sample(words: Words) -> Words:
    """Evenly spaced blocks, an eighth of the words or less; all where they are few."""
    length = min(_SAMPLE_WORDS, words.size // (_SAMPLE_BLOCKS * _SAMPLE_SHARE))
    if length < _SAMPLE_LEAST:
        return words[: _SAMPLE_BLOCKS * _SAMPLE_WORDS]
    starts = np.linspace(0, words.size - length, _SAMPLE_BLOCKS).astype(np.int64)
    return np.concatenate([words[start : start + length] for start in starts])


def _find_split(differences: Words, old: Words) -> Split | None:
    """A split of words with such differences and bases; ``None`` where it would not pay."""
    differences, magnitudes = differences[::_SPARSELY], _magnitudes(old[::_SPARSELY])
    place = int(_SMALL * magnitudes.size)
    limit = np.partition(magnitudes, place)[place]
    small, lengths = magnitudes < limit, np.log2(differences + np.float32(1))
    if not small.any():
        return None
    is_worth = lengths[small].mean() - lengths[~small].mean() > _LONGER
    return Split(int(limit)) if is_worth else None


def _encode_stream(writer: Writer, new: Words, old: Words) -> Encoded:
    for block in _blocks(new):
        writer.add(difference(new[block], old[block]))
    return Encoded(*writer.finish())


def _encode_split(
    split: Split, sample: Words, sample_old: Words, new: Words, old: Words
) -> Encoded:
    few, small = split.count(old), split.mask(sample_old)
    writers = (
        open_writer(np.compress(small, sample), few),
        open_writer(np.compress(~small, sample), new.size - few),
    )
    for block in _blocks(new):
        differences, small = difference(new[block], old[block]), split.mask(old[block])
        writers[0].add(np.compress(small, differences))
        writers[1].add(np.compress(~small, differences))
    (first, parts), (second, others) = (writer.finish() for writer in writers)
    limit = split.limit.to_bytes(new.itemsize, "little")
    head = _SPLIT + limit + bytes([len(first)])
    return Encoded(head + first + second, (*parts, *others))


def _differences(encoded: Encoded, old: Words) -> Iterator[Words]:
    """The differences block by block, whichever way they are stored."""
    if encoded.params[:1] == _SPLIT:
        return _read_split(encoded, old)
    return _read_stream(open_reader(encoded.params, encoded.parts, old.dtype), old)


def _read_stream(reader: Reader, old: Words) -> Iterator[Words]:
    for block in _blocks(old):
        yield reader.take(block.stop - block.start)
    reader.finish()


def _read_split(encoded: Encoded, old: Words) -> Iterator[Words]:
    split, readers = _open_split(encoded, old)
    for block in _blocks(old):
        small = split.mask(old[block])
        differences = np.empty(small.size, old.dtype)
        # Places are found and used in a third of the time that masks take.
        for reader, places in zip(readers, map(np.flatnonzero, (small, ~small)), strict=True):
            differences[places] = reader.take(places.size)
        yield differences
    for reader in readers:
        reader.finish()


def _open_split(encoded: Encoded, old: Words) -> tuple[Split, tuple[Reader, Reader]]:
    head = 1 + old.itemsize
    if len(encoded.params) <= head:
        raise CorruptObjectError("a delta frame's params are too short")
    split = Split(int.from_bytes(encoded.params[1:head], "little"))
    middle = head + 1 + encoded.params[head]
    first, second = encoded.params[head + 1 : middle], encoded.params[middle:]
    cut = parts_of(first)
    return split, (
        open_reader(first, encoded.parts[:cut], old.dtype),
        open_reader(second, encoded.parts[cut:], old.dtype),
    )
