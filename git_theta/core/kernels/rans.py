"""Interleaved range coding (rANS) in numpy: tokens to words of 16 bits, and back.

Each lane has a state; lane i codes every so-many-th token, from the last to the first.
"""

from __future__ import annotations

import numpy as np

from git_theta.core.kernels.arrays import LEAST, PRECISION, TOTAL, Bytes, Words

# With fewer lanes, a loop over Python's integers (0.4 us a word) is faster than numpy's calls
# (9 us a step).
_FEW_LANES = 16


def encode(ranges: Words, states: Words, pieces: list[Words]) -> None:
    """Code tokens, given by their ``ranges``: change ``states``, append the words to ``pieces``."""
    code = _encode_few if states.size < _FEW_LANES else _encode_many
    code(ranges, states, pieces)


def decode(
    slots: Words, contexts: Bytes, states: Words, words: Words, used: int
) -> tuple[Bytes, int]:
    """Return the tokens, and how many ``words`` are used now; change ``states``.

    More words than there are: they do not suffice.
    """
    code = _decode_few if states.size < _FEW_LANES else _decode_many
    return code(slots, contexts, states, words, used)


def _encode_many(ranges: Words, states: Words, pieces: list[Words]) -> None:
    lanes = states.size
    frequencies, starts = ranges >> 16, ranges & 0xFFFF
    # (quotient << PRECISION) + rest is the state and this times the quotient.
    rests = TOTAL - frequencies
    most = (frequencies << (32 - PRECISION)) - 1
    # Exact: the quotients of integers of 32 bits in float64, at a third of the time.
    divisors, quotients = frequencies.astype(np.float64), np.empty(lanes)
    for step in reversed(range(0, ranges.size, lanes)):
        here = slice(step, min(step + lanes, ranges.size))
        count = here.stop - step
        state = states[:count]
        full = state > most[here]
        pieces.append(state.take(full.nonzero()[0]).astype(np.uint16))
        state >>= full * np.uint32(16)
        np.divide(state, divisors[here], out=quotients[:count])
        moved = quotients[:count].astype(np.int32).view(np.uint32)
        moved *= rests[here]
        state += moved
        state += starts[here]


def _encode_few(ranges: Words, states: Words, pieces: list[Words]) -> None:
    lanes, held, found = states.size, states.tolist(), []
    all_ranges = ranges.tolist()
    for i in reversed(range(len(all_ranges))):
        state, frequency = held[i % lanes], all_ranges[i] >> 16
        if state >> (32 - PRECISION) >= frequency:
            found.append(state & 0xFFFF)
            state >>= 16
        quotient, rest = divmod(state, frequency)
        held[i % lanes] = (quotient << PRECISION) + rest + (all_ranges[i] & 0xFFFF)
    states[:] = held
    pieces.append(np.array(found[::-1], np.uint16))


def _decode_many(
    slots: Words, contexts: Bytes, states: Words, words: Words, used: int
) -> tuple[Bytes, int]:
    lanes, places = states.size, np.left_shift(contexts, PRECISION, dtype=np.intp)
    found = np.empty(contexts.size, np.uint32)
    for step in range(0, contexts.size, lanes):
        here = slice(step, min(step + lanes, contexts.size))
        state, at, slot = states[: here.stop - step], places[here], found[here]
        at += state & (TOTAL - 1)
        slots.take(at, out=slot, mode="clip")
        state >>= PRECISION
        state *= (slot >> 20) + 1
        state += slot >> 8 & (TOTAL - 1)
        low = (state < LEAST).nonzero()[0]
        more = words[used : used + low.size]
        used += low.size
        if more.size < low.size:
            break
        state[low] = state.take(low) << 16 | more
    return found.astype(np.uint8), used


def _decode_few(
    slots: Words, contexts: Bytes, states: Words, words: Words, used: int
) -> tuple[Bytes, int]:
    lanes, held, found = states.size, states.tolist(), bytearray(contexts.size)
    lines = [slots[start : start + TOTAL].tolist() for start in range(0, slots.size, TOTAL)]
    rest = iter(words[used : used + contexts.size].tolist())
    for i, context in enumerate(contexts.tolist()):
        state = held[i % lanes]
        slot = lines[context][state & (TOTAL - 1)]
        state = ((slot >> 20) + 1) * (state >> PRECISION) + (slot >> 8 & (TOTAL - 1))
        found[i] = slot & 0xFF
        if state < LEAST:
            used += 1
            more = next(rest, None)
            if more is None:
                used = words.size + 1
                break
            state = state << 16 | more
        held[i % lanes] = state
    states[:] = held
    return np.frombuffer(found, np.uint8), used
