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
    slots: Words, places: Words, states: Words, words: Words, used: int
) -> tuple[Bytes, int]:
    """Return the tokens, and how many ``words`` are used now; change ``states`` and ``places``.

    ``places`` say where the slots of each token's context begin. More words than there are: they do
    not suffice.
    """
    code = _decode_few if states.size < _FEW_LANES else _decode_many
    return code(slots, places, states, words, used)


def _encode_many(ranges: Words, states: Words, pieces: list[Words]) -> None:
    lanes = states.size
    frequencies, starts = ranges >> 16, ranges & 0xFFFF
    # (quotient << PRECISION) + rest is the state and this times the quotient.
    rests = TOTAL - frequencies
    most = (frequencies << (32 - PRECISION)) - 1
    # A product in float64 in place of each quotient, at a quarter of the time, rounded down to the
    # same integer: it is larger by a share of 2^-40, and what a quotient of 32 bits lacks to the
    # next integer is at least a share of 2^-32.
    inverses, quotients = (1 + 2**-40) / frequencies, np.empty(lanes)
    for step in reversed(range(0, ranges.size, lanes)):
        here = slice(step, min(step + lanes, ranges.size))
        count = here.stop - step
        state = states[:count]
        full = (state > most[here]).nonzero()[0]
        high = state.take(full)
        pieces.append(high.astype(np.uint16))
        high >>= 16
        state[full] = high
        np.multiply(state, inverses[here], out=quotients[:count])
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
    slots: Words, places: Words, states: Words, words: Words, used: int
) -> tuple[Bytes, int]:
    lanes, found = states.size, np.empty(places.size, np.uint32)
    for step in range(0, places.size, lanes):
        here = slice(step, min(step + lanes, places.size))
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
    slots: Words, places: Words, states: Words, words: Words, used: int
) -> tuple[Bytes, int]:
    lanes, held, found = states.size, states.tolist(), bytearray(places.size)
    known = slots.tolist()
    rest = iter(words[used : used + places.size].tolist())
    for i, place in enumerate(places.tolist()):
        state = held[i % lanes]
        slot = known[place + (state & (TOTAL - 1))]
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
