"""Interleaved range coding (rANS) in numpy: tokens to words of 16 bits, and back.

Each lane has a state; lane i codes every so-many-th token, from the last to the first. A step codes
a token of each lane. It takes a dozen calls of numpy, of 0.25 us and 0.1 ns for each lane. That is
why functions have no module before their names here, and results no name: of few lanes, a step
takes a seventh less.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy import add, bitwise_and, floor_divide, greater, less, multiply, right_shift

from git_theta.core.kernels.arrays import LEAST, PRECISION, TOTAL, Bytes, Mask, Words, look_up

# With fewer lanes, a loop over Python's integers (0.4 us a word) is faster than a step (3 us).
_FEW_LANES = 8
# With more, a product in float64 is faster than a division of integers, which takes a call less.
_MANY_LANES = 1024

# As arrays without dimensions: a number of Python costs each call 0.3 us more.
_TOTAL, _ONE, _FULL, _HALF, _LOW_HALF = (
    np.array(number, np.uint32) for number in (TOTAL, 1, 32 - PRECISION, 16, 0xFFFF)
)
_NONE = np.array(0, np.uint16)


@dataclass(frozen=True)
class Ranges:
    """Ranges of tokens, and what to multiply by, in float64, to divide by their frequencies.

    Rounded down the product is the quotient: it is larger by a share of 2^-40, and what a quotient
    of 32 bits lacks to the next integer is at least a share of 2^-32.
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
    frequencies = ranges >> _HALF
    starts = np.bitwise_and(ranges, _LOW_HALF, out=ranges)
    most = np.left_shift(frequencies, _FULL)
    np.subtract(most, _ONE, out=most)
    many = states.size > _MANY_LANES
    divisors = look_up(known.inverses, places) if many else frequencies
    # (quotient << PRECISION) + remainder is the state and this times the quotient.
    rests = _TOTAL - frequencies
    steps = (most, divisors, rests, starts)
    whole = places.size - places.size % states.size
    if whole < places.size:
        last = states[: places.size - whole]
        _encode_steps([each[None, whole:] for each in steps], last, pieces)
    _encode_steps([each[:whole].reshape(-1, states.size) for each in steps], states, pieces)


def _encode_steps(steps: list[Words], state: Words, pieces: list[Words]) -> None:
    low, high = _halves(state)
    quotients, inexact = np.empty(state.size, np.uint32), np.empty(state.size)
    is_full = Mask(state.size)
    for most, divisor, rest, start in zip(*(each[::-1] for each in steps), strict=True):
        greater(state, most, is_full.bits)
        full = is_full.places()
        pieces.append(low[full])
        low[full] = high[full]
        high[full] = _NONE
        if divisor.dtype == np.uint32:
            floor_divide(state, divisor, quotients)
        else:
            multiply(state, divisor, inexact)
            # As signed integers, in half the time.
            np.copyto(quotients.view(np.int32), inexact, casting="unsafe")
        multiply(quotients, rest, quotients)
        add(state, quotients, state)
        add(state, start, state)


def _halves(state: Words) -> tuple[Words, Words]:
    """Return views of the lower and the upper 16 bits: to move one takes two calls less."""
    low, high = state.view("<u2").reshape(state.size, state.itemsize // 2).T[:2]
    return low, high


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


class Decoder:
    """Decodes the tokens of one block after another.

    ``kind``: of what it computes with, int64 if there are tokens above 127 (of differences of 2^56
    and more), else uint32. ``used``: how many words were needed; more than there are: they do not
    suffice. ``states`` are those of the lanes now.
    """

    def __init__(self, slots: Words, states: Words, words: Words) -> None:
        tokens = slots & np.uint32(0xFF)
        is_wide = bool((tokens > 127).any())
        self.kind, self._token_bits = (np.int64, 8) if is_wide else (np.uint32, 7)
        # Frequency, token and slot - start in one word, to be looked up at once. All that a step
        # needs of it is one call away.
        frequencies = ((slots >> np.uint32(20)) + _ONE).astype(self.kind)
        self._slots = frequencies << (PRECISION + self._token_bits)
        self._slots |= tokens << PRECISION | slots >> np.uint32(8) & np.uint32(TOTAL - 1)
        self.states, self._words, self.used = states.astype(self.kind), words, 0

    @cached_property
    def _list(self) -> list[int]:
        found: list[int] = self._slots.tolist()
        return found

    def decode(self, places: Words) -> Bytes:
        """Return tokens; ``places`` (``kind``) say where the slots of each one's context begin.

        Change ``places``.
        """
        lanes = self.states.size
        if lanes < _FEW_LANES:
            found = self._decode_few(places)
        else:
            found = np.empty_like(places)
            whole = places.size - places.size % lanes
            self._decode_steps(places[:whole].reshape(-1, lanes), found[:whole].reshape(-1, lanes))
            if whole < places.size:
                self._decode_steps(places[None, whole:], found[None, whole:])
        np.right_shift(found, PRECISION, out=found)
        tokens: Bytes = found.astype(np.uint8)
        tokens &= np.uint8((1 << self._token_bits) - 1)
        return tokens

    def _decode_steps(self, places: Words, found: Words) -> None:
        """Write the slots of tokens (steps, lanes) to ``found``."""
        state, used = self.states[: places.shape[1]], self.used
        slots, words = self._slots, self._words
        numbers = (TOTAL - 1, PRECISION, PRECISION + self._token_bits, LEAST)
        rest, precision, frequency, least = (np.array(number, self.kind) for number in numbers)
        low, high = _halves(state)
        scratch, is_low = np.empty_like(state), Mask(state.size)
        for at, slot in zip(places, found, strict=True):
            bitwise_and(state, rest, scratch)
            add(at, scratch, at)
            slots.take(at, None, slot, "wrap")
            right_shift(state, precision, state)
            right_shift(slot, frequency, scratch)
            multiply(state, scratch, state)
            bitwise_and(slot, rest, scratch)
            add(state, scratch, state)
            less(state, least, is_low.bits)
            short = is_low.places()
            start, used = used, used + short.size
            if used > words.size:
                break
            high[short] = low[short]
            low[short] = words[start:used]
        self.used = used

    def _decode_few(self, places: Words) -> Words:
        slots, held, found = self._list, self.states.tolist(), []
        lanes, frequency = len(held), PRECISION + self._token_bits
        rest = iter(self._words[self.used : self.used + places.size].tolist())
        for i, place in enumerate(places.tolist()):
            state = held[i % lanes]
            slot = slots[place + (state & (TOTAL - 1))]
            found.append(slot)
            state = (slot >> frequency) * (state >> PRECISION) + (slot & (TOTAL - 1))
            if state < LEAST:
                self.used += 1
                more = next(rest, None)
                if more is None:
                    self.used = self._words.size + 1
                    break
                state = state << 16 | more
            held[i % lanes] = state
        self.states[:] = held
        return np.array(found, self.kind)
