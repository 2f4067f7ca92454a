"""The hot loops: compiled where there is a library for this machine, else in numpy; equal bits.

``reference.py`` and ``merging.py`` say what each computes. ``GIT_THETA_KERNELS=numpy`` leaves the
library aside, and a path there names another one, such as one with sanitizers in it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from git_theta.core.kernels import merging, native, reference
from git_theta.core.kernels.arrays import (
    LEAST,
    LITERALS,
    MAX_CONTEXTS,
    MAX_LANES,
    PRECISION,
    TOKENS,
    TOTAL,
    Bytes,
    Coded,
    Flaw,
    Literals,
    Model,
    Tables,
    Tokens,
    Words,
    look_up,
)
from git_theta.core.kernels.merging import RANDOM_RUN

__all__ = [
    "LEAST",
    "LITERALS",
    "MAX_CONTEXTS",
    "MAX_LANES",
    "PRECISION",
    "RANDOM_RUN",
    "TOKENS",
    "TOTAL",
    "Coded",
    "Flaw",
    "Literals",
    "Model",
    "Tables",
    "Tokens",
    "active_counts",
    "active_mean",
    "agreeing_mean",
    "between",
    "bf16_difference",
    "compare",
    "count_changed",
    "decode",
    "difference",
    "encode",
    "join",
    "largest",
    "look_up",
    "name",
    "restore",
    "row_dots",
    "split",
    "spread",
    "tables",
    "tally",
    "thin",
    "thin_ranked",
    "tokenize",
    "uniform",
]

_chosen = os.environ.get("GIT_THETA_KERNELS", "")
_native = None if _chosen == "numpy" else native.load(_chosen or native.LIBRARY)
if _native is None:
    reference.keep_freed_memory()


def name() -> str:
    """Return which kernels are in use: ``compiled`` or ``numpy``."""
    return "compiled" if _native else "numpy"


def split(words: Words, exponent: int, planes: Bytes) -> None:
    """Write the planes of words of two bytes or more to the rows of ``planes`` (word, count).

    Plane k holds byte k, the least significant first. With ``exponent`` the sign is first moved
    below so many bits that follow it.
    """
    (_native or reference).split(words, exponent, planes)


def join(planes: Sequence[Bytes], exponent: int, words: Words) -> None:
    """Undo ``split``."""
    (_native or reference).join(planes, exponent, words)


def difference(new: Words, old: Words, out: Words) -> None:
    """Write the zigzag differences of ``new`` from ``old``, modulo the word."""
    (_native or reference).difference(new, old, out)


def restore(differences: Words, old: Words, out: Words) -> None:
    """Write the words whose ``difference`` from ``old`` this is; ``out`` may be ``differences``."""
    (_native or reference).restore(differences, old, out)


def count_changed(new: Words, old: Words, limit: int) -> int:
    """Count the words that differ; any number above ``limit`` where there are more than that."""
    return (_native or reference).count_changed(new, old, limit)


def tokenize(new: Words, old: Words, shift: int, literals: Literals | None) -> Tokens:
    """Return the differences as tokens, counted by the base's key.

    Of tokens there are as many as words of that size may have: 16 and two for each bit.
    """
    return (_native or reference).tokenize(new, old, shift, literals)


def tables(frequencies: Words) -> Tables:
    """Turn a model's frequencies (contexts, ``TOKENS``), uint16, into what the coder looks up.

    Each row must add up to ``TOTAL``.
    """
    return (_native or reference).tables(frequencies)


def encode(tokens: Tokens, model: Model, ranges: Words, room: int, bit_count: int) -> Coded | None:
    """Code tokens; ``None`` where they do not fit ``room`` words of 16 bits.

    They are those of the model's ``shift`` and ``literals``, and every one must have a frequency in
    its context; ``bit_count`` is the sum of the raw bits.
    """
    return (_native or reference).encode(tokens, model, ranges, room, bit_count)


def decode(old: Words, model: Model, slots: Words, coded: Coded, out: Words) -> Flaw | None:
    """Write the words whose differences from ``old`` were coded; what is wrong, if anything is.

    Every word of ``old`` and every slot must be as ``tables`` makes them; ``coded`` may be hostile.
    """
    return (_native or reference).decode(old, model, slots, coded, out)


def compare(old: Words, model: Model, slots: Words, coded: Coded, expected: Words) -> Flaw | None:
    """As ``decode``, but compare with ``expected``, block by block, instead of writing."""
    return (_native or reference).compare(old, model, slots, coded, expected)


def tally(words: Words, room: int) -> tuple[Words, Words, Words | None]:
    """Return the high halves of magnitudes, ascending, and how often each occurs: int64.

    ``words`` are the bits of float32. And the magnitudes with a low half, in their order; ``None``
    where there are more than ``room``.
    """
    return (_native or merging).tally(words, room)


def agreeing_mean(
    deltas: Sequence[Words],
    limits: Sequence[tuple[float, int]],
    weights: Sequence[float],
    normalize: bool = True,
    electing: Sequence[float] | None = None,
) -> Words:
    """Return the mean of those float32 numbers, by element, that have the sign of their sum.

    Weighted in both, in the sum by ``electing`` if given; ``limits`` are a magnitude for each array
    and the index up to which elements that equal it count, as larger ones do.
    """
    voices = weights if electing is None else electing
    return (_native or merging).agreeing_mean(deltas, limits, weights, normalize, voices)


def between(delta: Words, high: tuple[float, int], low: tuple[float, int]) -> Words:
    """Return float32 numbers times 1 where they are above limit ``low`` and not above ``high``.

    Elsewhere times 0. Limits are as for ``agreeing_mean``.
    """
    return (_native or merging).between(delta, high, low)


def uniform(first: int, count: int, keys: tuple[int, int]) -> Words:
    """Return numbers in [0, 1), hashes of 32-bit indices from ``first`` on: float32 (count)."""
    return (_native or merging).uniform(first, count, keys)


def spread(numbers: Words, values: Words) -> Words:
    """Give each row's largest magnitude (rows, width) the first of ``values``, and so on.

    ``numbers`` are the bits of float32. Of equals the first comes first; NaN is the largest.
    """
    return (_native or merging).spread(numbers, values)


def largest(deltas: Sequence[Words]) -> Words:
    """Return, by element, the float32 number of largest magnitude; of opposite ones the positive.

    NaN is the largest.
    """
    return (_native or merging).largest(deltas)


def thin(delta: Words, random: Words, probability: Words, divides: bool) -> Words:
    """Return float32 numbers times 1 where ``random`` is below their ``probability``, else times 0.

    With ``divides``, over the probability, or over 1 where that is 0.
    """
    return (_native or merging).thin(delta, random, probability, divides)


def bf16_difference(left: Words, right: Words) -> Words:
    """Return the differences of bf16 numbers, given by their bits: float32."""
    return (_native or merging).bf16_difference(left, right)


def thin_ranked(
    delta: Words, probabilities: Words, first: int, keys: Words, divides: bool
) -> Words:
    """Return ``thin`` by probabilities of ranks in rows (rows, width), and ``uniform`` numbers.

    ``probabilities`` are as the values of ``spread``. ``keys``, uint32 (runs, 2), are those of each
    ``RANDOM_RUN`` random numbers, of which that of the first element is number ``first``.
    """
    return (_native or merging).thin_ranked(delta, probabilities, first, keys, divides)


def active_mean(deltas: Sequence[Words], threshold: float, gains: Sequence[float]) -> Words:
    """Return the mean of those float32 numbers, by element, that are above ``threshold``, or 0.

    Where there is one it is multiplied by its gain.
    """
    return (_native or merging).active_mean(deltas, threshold, gains)


def active_counts(deltas: Sequence[Words], threshold: float) -> Words:
    """Return how many numbers of each array are above ``threshold``, and how many alone: (N, 2)."""
    return (_native or merging).active_counts(deltas, threshold)


def row_dots(left: Words, right: Words) -> Words:
    """Return the dot products of rows of two float32 matrices: float64 (rows).

    Products, which are exact, are added by halving: the order depends on the width alone.
    """
    return (_native or merging).row_dots(left, right)
