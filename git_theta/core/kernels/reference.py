"""What every kernel computes, in numpy: the specification of ``kernels.c``, and its fallback.

The work is done in blocks. Words are flat little-endian arrays of
unsigned integers of 1, 2, 4 or 8 bytes, and lie at any address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from git_theta.core.kernels import bit_stream, rans, tokens
from git_theta.core.kernels.arrays import (
    LEAST,
    LITERALS,
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

# What is computed next mostly is in the L2 cache. Half as many words take a twentieth longer, as
# there are more calls.
_BLOCK = 1 << 17


def keep_freed_memory() -> None:
    """Let malloc keep the memory of a block's arrays for the next block.

    glibc gives back to the system what is more than the largest array that was ever freed. Of a
    first chunk of 22 MB, taking 87,000 pages again took as long as coding it.
    """
    np.empty(8 << 20, np.uint8)


def split(words: Words, exponent: int, planes: Bytes) -> None:
    """Write byte k of every word to row k of ``planes`` (word, count); see ``rotate``."""
    for block in _blocks(words.size):
        rotated = rotate(words[block], exponent) if exponent else words[block]
        planes[:, block] = rotated.view(np.uint8).reshape(-1, words.itemsize).T


def join(planes: Sequence[Bytes], exponent: int, words: Words) -> None:
    """Undo ``split``."""
    table = words.view(np.uint8).reshape(-1, words.itemsize)
    for block in _blocks(words.size):
        for k, plane in enumerate(planes):
            table[block, k] = plane[block]
        if exponent:
            words[block] = rotate_back(words[block], exponent)


def rotate(words: Words, exponent: int) -> Words:
    """Move the sign, the highest bit, below the ``exponent`` bits that follow it."""
    below, sign = _fields(words, exponent)
    high: Words = (words & ~(below | sign)) << 1
    moved: Words = (words >> (_bits(words) - 1)) << (_bits(words) - 1 - exponent)
    np.bitwise_or(high, moved, out=high)
    np.bitwise_or(high, words & below, out=high)
    return high


def rotate_back(words: Words, exponent: int) -> Words:
    """Undo ``rotate``."""
    below, sign = _fields(words, exponent)
    high: Words = (words >> 1) & ~(below | sign)
    np.bitwise_or(high, (words << exponent) & sign, out=high)
    np.bitwise_or(high, words & below, out=high)
    return high


def _fields(words: Words, exponent: int) -> tuple[np.unsignedinteger, np.unsignedinteger]:
    kind = words.dtype.type
    return kind((1 << _bits(words) - 1 - exponent) - 1), kind(1 << _bits(words) - 1)


def difference(new: Words, old: Words, out: Words) -> None:
    """Write the zigzag differences: 0, -1, 1, -2, 2 steps from old to new are 0, 1, 2, 3, 4."""
    for block in _blocks(new.size):
        delta = new[block] - old[block]
        sign = delta.view(np.dtype(f"<i{delta.itemsize}")) >> (_bits(delta) - 1)
        np.add(delta, delta, out=delta)
        np.bitwise_xor(delta, sign.view(delta.dtype), out=out[block])


def restore(differences: Words, old: Words, out: Words) -> None:
    """Write the words whose differences from ``old`` these are."""
    for block in _blocks(old.size):
        steps: Words = differences[block] >> 1
        sign = differences[block] & 1
        np.negative(sign, out=sign)
        np.bitwise_xor(steps, sign, out=steps)
        np.add(steps, old[block], out=out[block])


def count_changed(new: Words, old: Words, limit: int) -> int:
    """Count the words that differ; a number above ``limit`` where there are more than that."""
    changed = 0
    for block in _blocks(new.size):
        changed += int(np.count_nonzero(new[block] != old[block]))
        if changed > limit:
            break
    return changed


def tokenize(new: Words, old: Words, shift: int, literals: Literals | None) -> Tokens:
    """Return the differences as tokens, counted by the base's key."""
    places, bits = np.empty(new.size, np.uint16), bit_stream.Writer(8 * new.nbytes)
    counts = np.zeros(256 * TOKENS, np.uint32)
    for block in _blocks(new.size):
        differences = _differences(new[block], old[block])
        found = tokens.of(differences, literals)
        bits.add(*tokens.raw(differences, found))
        # In 16 bits, which suffice and are fastest to compute with.
        at = np.multiply(_keys(old[block], shift), TOKENS, dtype=np.uint16)
        np.add(at, found, out=places[block])
        here = np.bincount(places[block])
        counts[: here.size] += here.astype(np.uint32)
    width = LITERALS + 2 * _bits(new)
    by_key = counts.reshape(256, TOKENS)[:, :width]
    return Tokens(new, old, by_key, places, bits.stream())


def tables(frequencies: Words) -> Tables:
    """Turn frequencies (contexts, ``TOKENS``) into what is looked up; see ``kernels.c``."""
    kept = frequencies.astype(np.uint32)
    starts = np.cumsum(kept, axis=1, dtype=np.uint32) - kept
    ranges = kept << 16 | starts
    flat, every = kept.reshape(-1), np.arange(kept.size, dtype=np.uint32)
    owners = np.repeat(every, flat)
    within = np.arange(owners.size, dtype=np.uint32) % TOTAL - starts.reshape(-1)[owners]
    slots = (flat[owners] - 1) << 20 | within << 8 | owners % TOKENS
    return Tables(slots.astype(np.uint32), ranges.astype(np.uint32).reshape(-1))


def encode(found: Tokens, model: Model, ranges: Words, room: int, bit_count: int) -> Coded | None:
    """Code tokens; ``None`` where they take more than ``room`` words of 16 bits."""
    assert found.places is not None
    assert found.bits is not None
    assert found.bits.size == (bit_count + 7) // 8
    states: Words = np.full(model.lanes, LEAST, np.uint32)
    by_key = rans.Ranges.of(ranges.reshape(-1, TOKENS)[model.contexts].reshape(-1))
    pieces: list[Words] = []
    for block in reversed(list(_blocks(found.places.size))):
        rans.encode(by_key, found.places[block].astype(np.intp), states, pieces)
    words = np.concatenate([np.zeros(0, np.uint16), *reversed(pieces)])
    if words.size > room:
        return None
    return Coded(states.astype("<u4"), words.astype("<u2", copy=False), found.bits)


def decode(old: Words, model: Model, slots: Words, coded: Coded, out: Words) -> Flaw | None:
    """Write the words that were coded; what is wrong with ``coded`` where it is not well formed."""
    return _decode(old, model, slots, coded, lambda block: out[block], lambda block, words: True)


def compare(old: Words, model: Model, slots: Words, coded: Coded, expected: Words) -> Flaw | None:
    """As ``decode``, with words compared instead of written."""
    scratch = np.empty(min(_BLOCK, old.size), old.dtype)
    return _decode(
        old,
        model,
        slots,
        coded,
        lambda block: scratch[: block.stop - block.start],
        lambda block, words: np.array_equal(words, expected[block]),
    )


def _decode(
    old: Words,
    model: Model,
    slots: Words,
    coded: Coded,
    room: Callable[[slice], Words],
    is_right: Callable[[slice, Words], bool],
) -> Flaw | None:
    decoder, position = rans.Decoder(slots, coded.states, np.require(coded.words, None, "A")), 0
    known = tokens.known(model).astype(old.dtype)
    rows = np.left_shift(model.contexts, PRECISION, dtype=decoder.kind)
    for block in _blocks(old.size):
        found = decoder.decode(look_up(rows, _keys(old[block], model.shift)))
        if decoder.used > coded.words.size:
            return Flaw.CUT_OFF
        if found.size and int(found.max()) - LITERALS >= 2 * _bits(old):
            return Flaw.TOO_LARGE
        differences, position = tokens.differences(
            found, known, model.literals is not None, coded.bits, position
        )
        if position > 8 * coded.bits.size:
            return Flaw.CUT_OFF
        words = room(block)
        restore(differences, old[block], words)
        if not is_right(block, words):
            return Flaw.DIFFERENT
    is_whole = decoder.used == coded.words.size and 8 * coded.bits.size - position < 8
    return None if is_whole and (decoder.states == LEAST).all() else Flaw.LEFT_OVER


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))


def _bits(words: Words) -> int:
    return 8 * int(words.dtype.itemsize)


def _keys(old: Words, shift: int) -> Bytes:
    keys: Bytes = (old >> shift).astype(np.uint8)
    return keys


def _differences(new: Words, old: Words) -> Words:
    found = np.empty_like(new)
    difference(new, old, found)
    return found
