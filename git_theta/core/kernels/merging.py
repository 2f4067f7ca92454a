"""What the kernels of merging compute, in numpy; as ``reference``, of which this is a part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from git_theta.core.kernels.arrays import Words

Counts = NDArray[np.int64]
Floats = NDArray[np.float32]
Limit = tuple[float, int]
"""Magnitude, and the index of the last element that may equal it: -1 for none."""

RANDOM_RUN = 1 << 20
"""Random numbers that come from one pair of keys."""


def tally(words: Words, room: int) -> tuple[Counts, Counts, Words | None]:
    """Return the high halves of magnitudes, ascending, and how often each occurs.

    ``words`` are the bits of float32. And the magnitudes with a low half, in their order; ``None``
    where there are more than ``room``.
    """
    sizes = words & np.uint32(0x7FFFFFFF)
    counts = np.bincount(sizes >> np.uint32(16), minlength=1 << 15)
    keys = np.flatnonzero(counts)
    exact = sizes[(sizes & np.uint32(0xFFFF)) != 0]
    return keys, counts[keys], None if exact.size > room else exact


def agreeing_mean(
    deltas: Sequence[Floats],
    limits: Sequence[Limit],
    weights: Sequence[float],
    normalize: bool,
    electing: Sequence[float],
) -> Floats:
    """Return Σ wi τi / Σ wi over the τi, float32, that have the sign of Σ vi τi (zero: +).

    ``electing`` are the vi. Without ``normalize`` the sum.

    Of each τi those elements count that are above the magnitude of its limit, and those up to its
    index ``last`` that equal it. 0 where none agrees; additions are from the first to the last.
    """
    trimmed = [_trimmed(delta, *limit) for delta, limit in zip(deltas, limits, strict=True)]
    factors = [np.float32(weight) for weight in weights]
    voices = [np.float32(voice) for voice in electing]
    sign = np.where(_total(trimmed, voices) < 0, np.float32(-1), np.float32(1))
    agreeing = [np.where(delta * sign < 0, np.float32(0), delta * sign) for delta in trimmed]
    if not normalize:
        total: Floats = _total(agreeing, factors) * sign
        return total
    shares = _total([(delta > 0).astype(np.float32) for delta in agreeing], factors)
    shares += np.float32(1) - (shares > 0)
    mean: Floats = _total(agreeing, factors) / shares * sign
    return mean


def between(delta: Floats, high: Limit, low: Limit) -> Floats:
    """Return numbers times 1 where they are above limit ``low``, less 1 where above ``high``."""
    product: Floats = delta * (_reached(delta, *low) - _reached(delta, *high))
    return product


def uniform(first: int, count: int, keys: tuple[int, int]) -> Floats:
    """Return numbers in [0, 1) that are hashes of 32-bit indices from ``first`` on."""
    bits = np.arange(first, first + count, dtype=np.uint32) ^ np.uint32(keys[0])
    bits = (bits ^ (bits >> 17)) * np.uint32(0xED5AD4BB) ^ np.uint32(keys[1])
    bits = (bits ^ (bits >> 11)) * np.uint32(0xAC4C1B51)
    bits = (bits ^ (bits >> 15)) * np.uint32(0x31848BAB)
    bits ^= bits >> 14
    numbers: Floats = (bits >> 8).astype(np.float32) * np.float32(2**-24)
    return numbers


def spread(numbers: Words, values: Floats) -> Floats:
    """Give each row's largest magnitude (rows, width) the first of ``values``, and so on.

    ``numbers`` are the bits of float32. Of equals the first comes first; NaN is the largest.
    """
    bits = numbers & np.uint32(0x7FFFFFFF)
    keys = ~np.where(bits > 0x7F800000, np.uint32(0x7FC00000), bits)
    out = np.empty(numbers.shape, np.float32)
    places = np.argsort(keys, axis=1, kind="stable")
    np.put_along_axis(out, places, np.broadcast_to(values, numbers.shape), axis=1)
    return out


def largest(deltas: Sequence[Floats]) -> Floats:
    """Return, by element, the number of largest magnitude; of two opposite ones the positive.

    NaN is the largest.
    """
    words = [delta.view(np.uint32) for delta in deltas]
    # The sign, turned, below the magnitude: the larger word is the number that is wanted.
    found = np.maximum.reduce([word << 1 | ~word >> 31 for word in words])
    numbers: Floats = (found >> 1 | ~found << 31).view(np.float32)
    return numbers


def thin(delta: Floats, random: Floats, probability: Floats, divides: bool) -> Floats:
    """Return numbers times 1 where ``random`` is below their ``probability``, else times 0.

    With ``divides``, over the probability, or over 1 where that is 0.
    """
    kept: Floats = delta * (random < probability).astype(np.float32)
    if divides:
        kept /= np.where(probability == 0, np.float32(1), probability)
    return kept


def bf16_difference(left: Words, right: Words) -> Floats:
    """Return the differences of bf16 numbers, given by their bits: float32."""
    wide = [(words.astype(np.uint32) << np.uint32(16)).view(np.float32) for words in (left, right)]
    found: Floats = wide[0] - wide[1]
    return found


def thin_ranked(
    delta: Floats, probabilities: Floats, first: int, keys: Words, divides: bool
) -> Floats:
    """Return ``thin`` by probabilities of ranks in rows (rows, width), and ``uniform`` numbers.

    ``probabilities`` are as the values of ``spread``. ``keys`` (runs, 2) are those of each
    ``RANDOM_RUN`` random numbers, of which that of the first element is number ``first``.
    """
    stop, numbers = first + delta.size, []
    for run, pair in enumerate(keys.tolist()):
        begin, end = max(0, first - run * RANDOM_RUN), min(RANDOM_RUN, stop - run * RANDOM_RUN)
        numbers.append(uniform(begin, end - begin, (pair[0], pair[1])))
    random = np.concatenate(numbers).reshape(delta.shape)
    return thin(delta, random, spread(delta.view(np.uint32), probabilities), divides)


def active_mean(deltas: Sequence[Floats], threshold: float, gains: Sequence[float]) -> Floats:
    """Return the mean of those numbers, by element, that are above ``threshold``; 0 without any.

    Where there is one it is multiplied by its gain. Additions are from the first to the last.
    """
    active = [(np.abs(delta) > np.float32(threshold)).astype(np.float32) for delta in deltas]
    count: Floats = np.add.reduce(active)
    alone = (count == 1).astype(np.float32)
    kept = [
        delta * mask * (np.float32(1) + alone * np.float32(gain - 1))
        for delta, mask, gain in zip(deltas, active, gains, strict=True)
    ]
    mean: Floats = _total(kept, [np.float32(1)] * len(kept)) / (count + (count == 0))
    return mean.astype(np.float32)


def active_counts(deltas: Sequence[Floats], threshold: float) -> Counts:
    """Return how many numbers of each array are above ``threshold``, and how many alone: (N, 2)."""
    active = np.array([np.abs(delta) > np.float32(threshold) for delta in deltas])
    alone = active & (active.sum(0) == 1)
    return np.stack([active.sum(1), alone.sum(1)], axis=1)


def row_dots(left: Floats, right: Floats) -> NDArray[np.float64]:
    """Return the dot products of rows of two matrices: float64 (rows).

    Products, which are exact, are added by halving: the second half to the first, and so on; an odd
    one out comes last.
    """
    sums = left.astype(np.float64) * right.astype(np.float64)
    if not sums.shape[1]:
        return np.zeros(len(sums))
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = np.hstack([sums[:, :half] + sums[:, half : 2 * half], sums[:, 2 * half :]])
    return sums[:, 0]


def _trimmed(delta: Floats, magnitude: float, last: int) -> Floats:
    product: Floats = delta * _reached(delta, magnitude, last)
    return product


def _reached(delta: Floats, magnitude: float, last: int) -> Floats:
    limit, sizes = np.float32(magnitude), np.abs(delta)
    kept = sizes > limit
    ties = slice(0, max(0, last + 1))
    kept[ties] = ~(sizes[ties] < limit)
    mask: Floats = kept.astype(np.float32)
    return mask


def _total(terms: Sequence[Floats], factors: Sequence[np.float32]) -> Floats:
    total: Floats = terms[0] * factors[0]
    for term, factor in zip(terms[1:], factors[1:], strict=True):
        total += term * factor
    return total
