"""Values one behind another, the lowest bit first, in numpy.

They have up to 32 bits in arrays of uint32, and up to 63 in those of uint64, as have their lengths.
"""

from __future__ import annotations

import numpy as np

from git_theta.core.kernels.arrays import Bytes, Mask, Words, look_up

_BATCH = 1 << 15


def masks(lengths: Words) -> Words:
    """Return words of which so many of the lowest bits are set."""
    found: Words = np.left_shift(lengths.dtype.type(1), lengths)
    found -= lengths.dtype.type(1)
    return found


class Writer:
    """Writes values one behind another; ``most`` is how many bits they have at most."""

    def __init__(self, most: int) -> None:
        # Not written before it is needed: only what is filled takes memory.
        self._words = np.zeros(most // 64 + 3, "<u8")
        self._position, self._held = 0, 0
        self._values: list[Words] = []
        self._lengths: list[Words] = []

    def add(self, values: Words, lengths: Words) -> None:
        """Write the lowest bits, so many, of each value; no others may be set."""
        self._values.append(values)
        self._lengths.append(lengths)
        self._held += values.size
        # Of several blocks at once where each has few: of 3,000 most of the time went into calls.
        if self._held >= _BATCH:
            self._write()

    def stream(self) -> Bytes:
        """Return the bytes; in the last one zeros follow."""
        self._write()
        return self._words.view(np.uint8)[: (self._position + 7) // 8]

    def _write(self) -> None:
        if not self._held:
            return
        values, lengths = (_joined(each) for each in (self._values, self._lengths))
        self._values, self._lengths, self._held = [], [], 0
        if values.itemsize == 4:
            values, lengths = _paired(values, lengths)
        ends = np.cumsum(lengths)
        ends += np.uint64(self._position)
        self._position = int(ends[-1])
        _place(values, np.subtract(ends, lengths, out=ends), self._words)


def _joined(arrays: list[Words]) -> Words:
    """Return the arrays as one, with a zero behind where that makes an even number."""
    odd = sum(each.size for each in arrays) % 2
    return np.concatenate([*arrays, np.zeros(odd, arrays[0].dtype)])


def _paired(values: Words, lengths: Words) -> tuple[Words, Words]:
    """Return neighbours as one value (uint64) of the length of both."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    values, lengths = values.view("<u8"), lengths.view("<u8")
    short = lengths & low
    found = values >> half
    found <<= short
    found |= values & low
    short += lengths >> half
    return found, short


def _place(values: Words, places: Words, words: Words) -> None:
    """Write values, one behind another, from these bits on; the bits must be 0."""
    shifts = places & np.uint64(63)
    at = np.right_shift(places, np.uint64(6), out=places)
    is_last = Mask(at.size)
    np.not_equal(at[1:], at[:-1], out=is_last.bits[:-1])
    is_last.bits[-1] = True
    last = is_last.places()
    # As none has more than 64 bits, one begins in each of these words.
    here = words[int(at[0]) : int(at[-1]) + 2]
    # What begins in a word, as a difference of sums: no bit is set in two of them. It takes a fifth
    # of the time of np.bitwise_or.reduceat.
    sums = np.cumsum(values << shifts)[last]
    here[:-1] |= sums
    here[1:-1] -= sums[:-1]
    # The last of them may reach into the next word.
    here[1:] |= values[last] >> (np.uint64(63) - shifts[last]) >> np.uint64(1)


def read(bits: Bytes, position: int, lengths: Words) -> tuple[Words, int]:
    """Return values of so many bits each, from bit ``position`` on, and the position behind them.

    Where there are not so many bits, the values are zeros.
    """
    counts = lengths.astype(np.int64)
    places = np.cumsum(counts)
    end = position + int(places[-1])
    if end > 8 * bits.size:
        return np.zeros_like(lengths), end
    here = bits[4 * (position >> 5) : 4 * (end >> 5) + 8]
    whole = np.concatenate([here, np.zeros(16 + -here.size % 4, np.uint8)])
    # Every 64 bits that begin with one of its words of 32.
    windows = np.ndarray(whole.size // 4 - 1, "<u8", whole, strides=4).astype(np.uint64)
    places -= counts
    places += position & 31
    if lengths.itemsize == 4:
        return _look(windows, places, lengths), end
    low = np.minimum(lengths, np.uint64(32))
    high = _look(windows, places + low.view(np.int64), lengths - low)
    return _look(windows, places, low) | high << low, end


def _look(windows: Words, places: Words, lengths: Words) -> Words:
    found = look_up(windows, places >> 5)
    found >>= (places & 31).view(np.uint64)
    found = found.astype(lengths.dtype, copy=False)
    found &= masks(lengths)
    return found
