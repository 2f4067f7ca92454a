"""What kernels take and give."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Words = NDArray[Any]
"""Flat little-endian unsigned words of 1, 2, 4 or 8 bytes."""

LITERALS = 16
"""Tokens that stand for one difference each."""
TOKENS = 144
"""Literals, and two for each length that a difference of up to 64 bits may have."""
PRECISION = 12
TOTAL = 1 << PRECISION
"""What the frequencies of a context add up to."""
LEAST = 1 << 16
"""Between two tokens, a state is at least this."""
MAX_LANES = 4096
MAX_CONTEXTS = 32


class Flaw(IntEnum):
    """What may be wrong with coded differences."""

    CUT_OFF = 1
    LEFT_OVER = 2
    TOO_LARGE = 3
    DIFFERENT = 4


def look_up(table: Words, indices: Words) -> Words:
    """Return ``table[indices]``; all must be within the table."""
    # 0.4 ns each: as the integers that numpy would make of them, wrapped, which takes two thirds of
    # the time of a check or of clipping.
    return table.take(indices.astype(np.intp, copy=False), mode="wrap")


class Mask:
    """Truth values ``bits``, to be filled, and where they are true.

    Of an array of which at most a tenth is true, ``nonzero`` looks for one after another: 1.3 ns
    for each value, if that is by chance, where it takes 0.4 else. So more follow that are true.
    """

    def __init__(self, count: int) -> None:
        self._padded = np.ones(count + count // 8 + 1, np.bool_)
        self._end = count - self._padded.size
        self.bits = self._padded[:count]

    def places(self) -> NDArray[np.intp]:
        """Return where they are true, ascending."""
        return self._padded.nonzero()[0][: self._end]


@dataclass(frozen=True)
class Literals:
    """The differences, all below 1 << 16 and no two alike, of tokens 0 to 15: uint64."""

    values: NDArray[np.uint64]

    @cached_property
    def lookup(self) -> Bytes:
        """The token of each difference below 1 << 16; 255 where that is no literal."""
        lookup = np.full(1 << 16, 255, np.uint8)
        lookup[self.values.astype(np.intp)] = np.arange(LITERALS)
        return lookup


@dataclass(frozen=True)
class Model:
    """How differences are coded.

    ``shift``: the key of a base's word is its byte from bit ``shift`` on; ``contexts`` (256, uint8)
    has the context of each key, ``frequencies`` (contexts, ``TOKENS``), uint16, the share of each
    token in ``TOTAL``. ``lanes`` is a power of two up to ``MAX_LANES``. Without ``literals``, these
    are the differences 0 to 15.
    """

    shift: int
    contexts: Bytes
    frequencies: NDArray[np.uint16]
    lanes: int
    literals: Literals | None = None

    @property
    def literal_values(self) -> NDArray[np.uint64]:
        """The differences of tokens 0 to 15."""
        return (
            np.arange(LITERALS, dtype=np.uint64) if self.literals is None else self.literals.values
        )


class Tables(NamedTuple):
    """What a coder looks up.

    ``slots`` (contexts * ``TOTAL``) to decode by, ``ranges`` (contexts * ``TOKENS``) to encode by.
    """

    slots: NDArray[np.uint32]
    ranges: NDArray[np.uint32]


@dataclass(frozen=True)
class Tokens:
    """Differences of ``new`` from ``old`` as tokens, about to be coded.

    ``counts``: how often each occurs by the base's key: (256, tokens), uint32. Where compiled code
    finds the tokens again in less time than it takes to read them, there is no more. In numpy,
    ``places`` say which they are (key * ``TOKENS`` + token, uint16), and ``bits`` are the raw bits.
    """

    new: Words
    old: Words
    counts: Words
    places: Words | None = None
    bits: Bytes | None = None


class Coded(NamedTuple):
    """Coded differences: final states (one to a lane, uint32), words (uint16), raw bits."""

    states: Words
    words: Words
    bits: Bytes
