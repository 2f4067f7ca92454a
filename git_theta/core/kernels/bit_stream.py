"""Values of 0 to 64 bits one behind another, the lowest bit first, in numpy."""

from __future__ import annotations

import numpy as np

from git_theta.core.kernels.arrays import Bytes, Words


def masks(lengths: Words) -> Words:
    """Return the values (uint64) whose lowest so many bits are set."""
    masks: Words = (np.uint64(1) << lengths.astype(np.uint64)) - np.uint64(1)
    return masks


def pack(values: Words, lengths: Words) -> Bytes:
    """Return values (uint64) of so many bits each as one stream."""
    total = int(lengths.sum())
    # Pieces of up to 32 bits, so that each lies in two words of 32 bits.
    values = np.stack([values & np.uint64(0xFFFFFFFF), values >> np.uint64(32)], 1).reshape(-1)
    lengths = np.stack([np.minimum(lengths, 32), np.maximum(lengths - 32, 0)], 1).reshape(-1)
    places = np.cumsum(lengths) - lengths
    shifted = values << (places & 31).astype(np.uint64)
    words = np.zeros(total // 32 + 3, np.uint32)
    if values.size:
        starts = np.flatnonzero(np.diff(places >> 5, prepend=-1))
        targets = (places >> 5)[starts]
        words[targets] = np.bitwise_or.reduceat(shifted & np.uint64(0xFFFFFFFF), starts)
        words[targets + 1] |= np.bitwise_or.reduceat(shifted >> np.uint64(32), starts).astype(
            np.uint32
        )
    return words.astype("<u4").view(np.uint8)[: (total + 7) // 8]


def unpack(bits: Bytes, places: Words, lengths: Words) -> Words:
    """Return the values (uint64) of so many bits each that lie at ``places``, counted in bits."""
    whole = np.concatenate([bits, np.zeros(16 + -bits.size % 4, np.uint8)]).view("<u4")
    words = whole.astype(np.uint64)

    def read(at: Words, count: Words) -> Words:
        both = words[at >> 5] | words[(at >> 5) + 1] << np.uint64(32)
        found: Words = both >> (at & 31).astype(np.uint64) & masks(count)
        return found

    low = read(places, np.minimum(lengths, 32))
    high = read(places + np.minimum(lengths, 32), np.maximum(lengths - 32, 0))
    np.bitwise_or(low, high << np.uint64(32), out=low)
    return low
