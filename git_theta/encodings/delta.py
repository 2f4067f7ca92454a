"""Encoding 1: the difference of every word from the base's (``docs/spec.md``, Delta).

Differences are coded in the context of the base's words (``models.py``). Params hold the model,
part 0 the lanes' states and the words of the coder, part 1 the raw bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from git_theta.core import kernels
from git_theta.core.arrays import new_array
from git_theta.core.kernels import Coded, Flaw, Model
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings import models
from git_theta.encodings.zigzag import as_words, fit, word_size
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

_FLAWS = {
    Flaw.CUT_OFF: "lacks differences",
    Flaw.LEFT_OVER: "has differences that no word uses",
    Flaw.TOO_LARGE: "has a difference that is too large for a word",
}

# More than the chunk has, so that one of a few words has a delta too.
_ROOM = 16


class Delta:
    """Differences of words against a base of any length (see ``fit``)."""

    name = "delta"
    number = 1
    needs_base = True

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded | None:
        """Return differences; ``None`` without a base, or where they are no shorter."""
        if base is None or not raw.size:
            return None
        word = word_size(geometry.dtype, raw.size)
        new, old = as_words(raw, word), as_words(fit(base, raw.size), word)
        found = models.fit(new, old, models.key_shift(geometry.dtype, word))
        ranges = kernels.tables(found.model.frequencies).ranges
        room = min(raw.size // 2 + _ROOM, found.room)
        coded = kernels.encode(found.tokens, found.model, ranges, room, found.raw_bits)
        if coded is None:
            return None
        stream = np.concatenate([coded.states.view("<u2"), coded.words])
        return Encoded(models.to_bytes(found.model), (_part(stream), _part(coded.bits)))

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """Return the ``length`` raw bytes; ``CorruptObjectError`` when the parts do not fit."""
        if base is None:
            raise CorruptObjectError("a delta frame has no base")
        old = as_words(fit(base, length), word_size(geometry.dtype, length))
        model, coded = _read(encoded, old.itemsize)
        new = new_array(length).view(old.dtype)
        slots = kernels.tables(model.frequencies).slots
        if flaw := kernels.decode(old, model, slots, coded, new):
            raise CorruptObjectError(f"a delta frame {_FLAWS[flaw]}")
        return new.view(np.uint8)

    def is_exact(self, encoded: Encoded, base: Bytes, geometry: Geometry, raw: Bytes) -> bool:
        """Return whether ``decode`` gives ``raw``, compared block by block while decoding."""
        word = word_size(geometry.dtype, raw.size)
        old, new = as_words(fit(base, raw.size), word), as_words(raw, word)
        model, coded = _read(encoded, word)
        slots = kernels.tables(model.frequencies).slots
        return kernels.compare(old, model, slots, coded, new) is None


ENCODING = Delta()


def _part(words: NDArray[np.unsignedinteger]) -> Part:
    return Part(1, words.view(np.uint8).data, is_coded=True)


def _read(encoded: Encoded, word: int) -> tuple[Model, Coded]:
    if [part.word for part in encoded.parts] != [1, 1]:
        raise CorruptObjectError("a delta frame has other parts than it should")
    model = models.from_bytes(encoded.params, word)
    stream, bits = (np.frombuffer(part.data, np.uint8) for part in encoded.parts)
    if stream.size % 2 or stream.size < 4 * model.lanes:
        raise CorruptObjectError("a delta frame does not have one state for each lane")
    states, words = stream[: 4 * model.lanes], stream[4 * model.lanes :]
    return model, Coded(states.view("<u4"), words.view("<u2"), bits)
