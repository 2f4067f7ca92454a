"""Interleaved range coding (rANS) in numpy: tokens to words of 16 bits, and back.

Each lane has a state; lane i codes every so-many-th token, from the last to the first. A step codes
a token of each lane. With many lanes it costs numpy's passes over them, with few its calls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from git_theta.core.kernels.arrays import LEAST, PRECISION, TOTAL, Bytes, Words, look_up

# With fewer lanes, a loop over Python's integers (0.4 us a word) is faster than a step (5 us).
_FEW_LANES = 12

# As arrays without dimensions: a number of Python costs each call 0.3 us more.
_LEAST, _TOTAL, _LOW, _ONE, _PRECISION, _HALF, _LOW_HALF, _TOKEN, _FREQUENCY = (
    np.array(number, np.uint32)
    for number in (LEAST, TOTAL, TOTAL - 1, 1, PRECISION, 16, 0xFFFF, 8, 20)
)


@dataclass(frozen=True)
class Ranges:
    """Ranges of tokens, and what to multiply by, in float64, to divide by their frequencies.

    It takes a quarter of the time, and rounded down gives the same integer: a product is larger by
    a share of 2^-40, and what a quotient of 32 bits lacks to the next integer is at least a share
    of 2^-32.
    """

    ranges: Words
    inverses: Words

    @classmethod
    def of(cls, ranges: Words) -> Ranges:
        """``ranges`` are as ``tables`` makes them."""
        return cls(ranges, (1 + 2**-40) / np.maximum(ranges >> _HALF, 1))


def encode(known: Ranges, places: Words, states: Words, pieces: list[Words]) -> None:
    """Code tokens, given by their ``places`` (intp) in ``known``.

    Change ``states``, append the words to ``pieces``: those of the last tokens first.
    """
    ranges = look_up(known.ranges, places)
    if states.size < _FEW_LANES:
        _encode_few(ranges, states, pieces)
        return
    frequencies, starts = ranges >> _HALF, ranges & _LOW_HALF
    most = (frequencies << np.uint32(32 - PRECISION)) - _ONE
    # (quotient << PRECISION) + remainder is the state and this times the quotient.
    rests = np.subtract(_TOTAL, frequencies, out=frequencies)
    steps = (most, look_up(known.inverses, places), rests, starts)
    whole = places.size - places.size % states.size
    last = states[: places.size - whole]
    _encode_steps([each[None, whole:] for each in steps], last, pieces)
    _encode_steps([each[:whole].reshape(-1, states.size) for each in steps], states, pieces)


def _encode_steps(steps: list[Words], state: Words, pieces: list[Words]) -> None:
    quotients = np.empty(state.size)
    for most, inverse, rest, start in zip(*(each[::-1] for each in steps), strict=True):
        full = np.greater(state, most).nonzero()[0]
        high = state.take(full)
        pieces.append(high.astype(np.uint16))
        state[full] = np.right_shift(high, _HALF)
        np.multiply(state, inverse, out=quotients)
        moved = quotients.astype(np.int32).view(np.uint32)
        np.multiply(moved, rest, out=moved)
        np.add(state, moved, out=state)
        np.add(state, start, out=state)


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


def decode(
    slots: Words, places: Words, states: Words, words: Words, used: int
) -> tuple[Bytes, int]:
    """Return the tokens, and how many ``words`` are used now; change ``states`` and ``places``.

    ``places`` (intp) say where the slots of each token's context begin. More words than there are:
    they do not suffice.
    """
    if states.size < _FEW_LANES:
        return _decode_few(slots, places, states, words, used)
    more, found = (
        words[used : used + places.size].astype(np.uint32),
        np.empty(places.size, np.uint32),
    )
    whole = places.size - places.size % states.size
    ats, each = (array[:whole].reshape(-1, states.size) for array in (places, found))
    taken = _decode_steps(slots, ats, each, states, more)
    last = states[: places.size - whole]
    taken += _decode_steps(slots, places[None, whole:], found[None, whole:], last, more[taken:])
    return found.astype(np.uint8), used + taken


def _decode_steps(slots: Words, places: Words, found: Words, state: Words, words: Words) -> int:
    """Write the slots of tokens (steps, lanes) to ``found``; return how many words they need."""
    used, scratch = 0, np.empty_like(state)
    for at, slot in zip(places, found, strict=True):
        np.bitwise_and(state, _LOW, out=scratch)
        np.add(at, scratch, out=at)
        slots.take(at, out=slot, mode="wrap")
        np.right_shift(state, _PRECISION, out=state)
        np.right_shift(slot, _FREQUENCY, out=scratch)
        np.add(scratch, _ONE, out=scratch)
        np.multiply(state, scratch, out=state)
        np.right_shift(slot, _TOKEN, out=scratch)
        np.bitwise_and(scratch, _LOW, out=scratch)
        np.add(state, scratch, out=state)
        low = np.less(state, _LEAST).nonzero()[0]
        more = words[used : used + low.size]
        used += low.size
        if more.size < low.size:
            break
        high = state.take(low)
        np.left_shift(high, _HALF, out=high)
        state[low] = np.bitwise_or(high, more, out=high)
    return used


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
