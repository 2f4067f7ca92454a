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
    Mask,
    Model,
    Words,
    look_up,
)

# The first token that says the two highest bits of its difference.
_FIRST_LONG = LITERALS + 2


def of(differences: Words, literals: Literals | None) -> Words:
    """Return each difference's token (uint16): a literal's, or length and second highest bit."""
    if literals is None and differences.itemsize <= 2:
        return look_up(_short_tokens(), differences)
    few, first = (LITERALS, 0) if literals is None else (2, LITERALS)
    tokens = _long_tokens(differences)
    np.copyto(tokens, (differences + first).astype(np.uint16), where=differences < few)
    if literals is not None:
        largest = min(0xFFFF, np.iinfo(differences.dtype).max)
        found = look_up(literals.lookup, np.minimum(differences, largest))
        np.copyto(tokens, found, where=(found < LITERALS) & (differences <= largest))
    return tokens


def _long_tokens(differences: Words) -> Words:
    """Return the tokens of differences from 2 on that are no literals."""
    if differences.itemsize <= 4:
        # A float has the length and the second bit on top.
        tokens = (differences.astype(np.float64).view(np.uint64) >> 51).astype(np.uint16)
        tokens += np.uint16((LITERALS - 2 * 1023) % (1 << 16))
        return tokens
    length = _lengths(differences)
    second = (differences >> np.maximum(length - 1, 0).astype(np.uint64)).astype(np.int64) & 1
    found: Words = (LITERALS + 2 * length + second).astype(np.uint16)
    return found


@cache
def _short_tokens() -> Words:
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
    rest = np.arange(_FIRST_LONG, TOKENS)
    found[rest] = (2 | rest & 1).astype(np.uint64) << _raw_bits(rest).astype(np.uint64)
    return found


def raw(differences: Words, tokens: Words) -> tuple[Words, Words]:
    """Return the raw bits of differences that may have some, and how many each has."""
    places = _long(tokens)
    kind = _kind(differences)
    lengths = _raw_bits(tokens[places]).astype(kind)
    values = differences[places].astype(kind)
    values &= bit_stream.masks(lengths)
    return values, lengths


def differences(
    found: Bytes, known: Words, are_literals: bool, bits: Bytes, position: int
) -> tuple[Words, int]:
    """Return the differences of tokens, and the position behind their raw bits.

    ``known`` is what tokens say of them; without ``are_literals`` short tokens say themselves.
    """
    words = look_up(known, found) if are_literals else found.astype(known.dtype)
    places = _long(found)
    tokens = found[places]
    if not tokens.size:
        return words, position
    lengths = _raw_bits(tokens).astype(_kind(words))
    values, position = bit_stream.read(bits, position, lengths)
    values |= (tokens & np.uint8(1) | np.uint8(2)).astype(values.dtype) << lengths
    few = (tokens < _FIRST_LONG).nonzero()[0]
    values[few] = known[tokens[few]]
    words[places] = values
    return words, position


def _long(tokens: Words) -> Words | slice:
    """Return where tokens are that may have raw bits; all places, where most are such."""
    is_long = Mask(tokens.size)
    np.greater_equal(tokens, tokens.dtype.type(LITERALS), out=is_long.bits)
    if 2 * np.count_nonzero(is_long.bits) > tokens.size:
        return slice(None)
    return is_long.places()


def _kind(words: Words) -> type[np.unsignedinteger]:
    """Return the type of raw bits of such words."""
    return np.uint64 if words.itemsize == 8 else np.uint32


def _raw_bits(tokens: Words) -> Words:
    """Return how many bits follow tokens as they are: computed in a fifth of a look-up's time."""
    found = tokens >> 1
    found -= tokens.dtype.type(_FIRST_LONG // 2)
    found *= tokens >= _FIRST_LONG
    return found
