"""Differences as tokens and raw bits, in numpy: what the coder codes, and what follows as it is."""

from __future__ import annotations

from functools import cache

import numpy as np

from git_theta.core.kernels import bit_stream
from git_theta.core.kernels.arrays import (
    LITERALS,
    TOKENS,
    Bytes,
    Literals,
    Model,
    Words,
    look_up,
)

RAW_BITS = np.maximum((np.arange(256) - LITERALS) // 2 - 1, 0)
"""Of a difference with each token: how many bits follow as they are."""


def of(differences: Words, literals: Literals | None) -> Bytes:
    """Return each difference's token: a literal's number, or length and second highest bit."""
    if literals is None and differences.itemsize <= 2:
        return look_up(_short_tokens(), differences)
    few, first = (LITERALS, 0) if literals is None else (2, LITERALS)
    tokens = _long_tokens(differences)
    np.copyto(tokens, (differences + first).astype(np.uint8), where=differences < few)
    if literals is not None:
        largest = min(0xFFFF, np.iinfo(differences.dtype).max)
        found = look_up(literals.lookup, np.minimum(differences, largest))
        np.copyto(tokens, found, where=(found < LITERALS) & (differences <= largest))
    return tokens


def _long_tokens(differences: Words) -> Bytes:
    """Return the tokens of differences from 2 on that are no literals."""
    if differences.itemsize <= 4:
        # A float has the length and the second bit on top; the lowest of more than 24 bits are
        # left out, as rounding could carry from them.
        is_large = differences > 0xFFFFFF
        floats = (differences >> (is_large * differences.dtype.type(8))).astype(np.float32)
        tokens: Bytes = (floats.view(np.uint32) >> 22).astype(np.uint8)
        tokens += is_large * np.uint8(16)
        tokens += np.uint8((LITERALS - 2 * 127) % 256)
        return tokens
    length = _lengths(differences)
    second = (differences >> np.maximum(length - 1, 0).astype(np.uint64)).astype(np.int64) & 1
    found: Bytes = (LITERALS + 2 * length + second).astype(np.uint8)
    return found


@cache
def _short_tokens() -> Bytes:
    """Return the token of every word of 16 bits where there are no literals."""
    words = np.arange(1 << 16, dtype=np.uint32)
    return of(words, None)


def _lengths(values: Words) -> Words:
    """Return the place of the highest bit of each uint64; 0 for 0."""
    high = values >> np.uint64(32)
    halves = np.where(high > 0, high, values).astype(np.float64)
    exponents = np.frexp(np.maximum(halves, 1))[1].astype(np.int64) - 1
    lengths: Words = exponents + 32 * (high > 0)
    return lengths


def known(model: Model) -> Words:
    """Return what each token says of its difference (uint64), all but the raw bits."""
    found = np.zeros(256, np.uint64)
    found[:LITERALS] = model.literal_values
    found[LITERALS + 1] = 1
    rest = np.arange(LITERALS + 2, TOKENS)
    found[rest] = (2 | rest & 1).astype(np.uint64) << RAW_BITS[rest].astype(np.uint64)
    return found


def long(tokens: Bytes) -> Words | slice:
    """Return where tokens are that may have raw bits; all places, where most are such."""
    is_long = tokens >= LITERALS
    return slice(None) if 2 * np.count_nonzero(is_long) > tokens.size else is_long.nonzero()[0]


def differences(
    found: Bytes, known: Words, are_literals: bool, bits: Bytes, position: int
) -> tuple[Words, int]:
    """Return the differences of tokens, and the position behind their raw bits.

    ``known`` is what tokens say of them; without ``are_literals`` short tokens say themselves.
    """
    words = look_up(known, found) if are_literals else found.astype(known.dtype)
    places = long(found)
    tokens = found[places]
    if not tokens.size:
        return words, position
    counts, rest = look_up(RAW_BITS, tokens), look_up(known, tokens)
    ends = position + np.cumsum(counts)
    if ends[-1] <= 8 * bits.size:
        rest |= bit_stream.unpack(bits, ends - counts, counts).astype(known.dtype)
    words[places] = rest
    return words, int(ends[-1])
