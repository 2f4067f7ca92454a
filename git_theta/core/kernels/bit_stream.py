"""Values of 0 to 64 bits one behind another, the lowest bit first, in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from git_theta.core.kernels.arrays import Bytes, Words


def masks(lengths: Words) -> Words:
    """Return the values (uint64) whose lowest so many bits are set."""
    masks: Words = (np.uint64(1) << lengths.astype(np.uint64)) - np.uint64(1)
    return masks


def pack(values: Sequence[Words], lengths: Sequence[Bytes]) -> Bytes:
    """Return the values of all blocks, of so many bits each, as one stream.

    Block by block: arrays of all values do not fit a cache, and took three times as long.
    """
    total = sum(int(block.sum()) for block in lengths)
    words, position = np.zeros(total // 32 + 3, np.uint32), 0
    for block, counts in zip(values, lengths, strict=True):
        if block.size:
            position = _pack_block(block, counts.astype(np.int64), words, position)
    return words.astype("<u4").view(np.uint8)[: (total + 7) // 8]


def _pack_block(values: Words, lengths: Words, words: Words, position: int) -> int:
    """Add values to a stream from bit ``position`` on; return the position behind them."""
    values = values.astype(np.uint64)
    if lengths.max() > 32:  # pieces of up to 32 bits, so that each lies in two words of 32 bits
        values = np.stack([values & np.uint64(0xFFFFFFFF), values >> np.uint64(32)], 1).reshape(-1)
        lengths = np.stack([np.minimum(lengths, 32), np.maximum(lengths - 32, 0)], 1).reshape(-1)
    ends = position + np.cumsum(lengths)
    places = ends - lengths
    values <<= (places & 31).astype(np.uint64)
    places >>= 5
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    targets = places[starts]
    both = np.bitwise_or.reduceat(values, starts)
    words[targets] |= both.astype(np.uint32)
    words[targets + 1] |= (both >> np.uint64(32)).astype(np.uint32)
    return int(ends[-1])


def unpack(bits: Bytes, places: Words, lengths: Words) -> Words:
    """Return the values (uint64) of so many bits each that lie at ``places``, in order.

    Places are counted in bits.
    """
    first, last = int(places[0]) >> 5, int(places[-1] + lengths[-1]) >> 5
    here = bits[4 * first : 4 * last + 8]
    whole = np.concatenate([here, np.zeros(16 + -here.size % 4, np.uint8)]).view("<u4")
    words = whole[:-1].astype(np.uint64)
    words |= whole[1:].astype(np.uint64) << np.uint64(32)

    def read(at: Words, count: Words) -> Words:
        found: Words = words.take((at >> 5) - first)
        found >>= (at & 31).astype(np.uint64)
        found &= masks(count)
        return found

    low = read(places, np.minimum(lengths, 32))
    if lengths.max() > 32:
        high = read(places + np.minimum(lengths, 32), np.maximum(lengths - 32, 0))
        low |= high << np.uint64(32)
    return low
