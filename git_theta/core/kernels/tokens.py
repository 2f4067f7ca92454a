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


def with_raw_bits(tokens: Bytes) -> Words | slice:
    """Return where the tokens are that raw bits follow; all places, where most have some."""
    has_some = tokens >= LITERALS + 4
    is_most = 2 * np.count_nonzero(has_some) > tokens.size
    return slice(None) if is_most else has_some.nonzero()[0]


def differences(found: Bytes, known: Words, bits: Bytes, position: int) -> tuple[Words, int]:
    """Return the differences of tokens, and the position behind their raw bits."""
    words, long = look_up(known, found), with_raw_bits(found)
    counts = look_up(RAW_BITS, found[long])
    ends = position + np.cumsum(counts)
    if counts.size and ends[-1] <= 8 * bits.size:
        raw = bit_stream.unpack(bits, ends - counts, counts)
        words[long] |= raw.astype(known.dtype)
    return words, int(ends[-1]) if counts.size else position
