"""Encoding 8: a base of which words are zero now, and what that misses (``docs/spec.md``, Pruned).

Params: u8 whether zeros keep their signs, u64 threshold, u8 the encoding against the base with
zeros, and the params of that. Parts: a bit for each word, and the parts of that encoding.

Words of the base whose magnitude, their bits without the sign, is below the threshold are zero,
and others are not: the bits say where it is the other way. So words that were pruned by magnitude
take next to nothing, and those that were pruned by anything else a bit each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta.core import registry
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.core.registry import Encoding
from git_theta.encodings.float_formats import FORMATS
from git_theta.encodings.zigzag import Words
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]
Bits = NDArray[np.bool_]

_PARAMS = struct.Struct("<BQB")
# Tried in turn: one weight that was tuned too is mostly one of many.
_INNER = ("sparse", "delta")
# Words whose arrays stay in the L2 cache; a multiple of 8, as bits are packed.
_BLOCK = 1 << 15
# A sample of so many runs tells the threshold: to the last bit of a bf16, to 1 in 128 of others.
_RUNS, _RUN = 16, 1 << 12
_BINS = 1 << 15
# Of the sample: where fewer words became zero, the other encodings take less.
_LEAST_GONE = 1 / 32


@dataclass(frozen=True, slots=True)
class _Rule:
    threshold: int
    keeps_signs: bool

    def predict(self, old: Words, bits: Bits) -> Words:
        """Return the words of the base, with zeros where the rule and the bits say so."""
        top = _top(old)
        gone = bits ^ self.holds(old)
        return np.where(gone, old & top if self.keeps_signs else top ^ top, old)

    def holds(self, old: Words) -> Bits:
        found: Bits = _magnitudes(old) < old.dtype.type(self.threshold)
        return found


class Pruned:
    """Finds by itself that many words of a base of the same length became zero."""

    name = "pruned"
    number = 8
    needs_base = True

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded | None:
        """Return which words became zero; ``None``, after a look at a sample, where few did."""
        form = FORMATS.get(geometry.dtype.name)
        if form is None or base is None or base.size != raw.size or raw.size % form.word:
            return None
        new, old = raw.view(form.unsigned), base.view(form.unsigned)
        rule = _find(new, old)
        if rule is None:
            return None
        bits, predicted = np.empty(-(-new.size // 8), np.uint8), np.empty_like(old)
        for block in _blocks(new.size):
            different = (_magnitudes(new[block]) == 0) ^ rule.holds(old[block])
            different &= _magnitudes(old[block]) != 0
            packed = np.packbits(different, bitorder="little")
            bits[block.start // 8 : block.start // 8 + packed.size] = packed
            predicted[block] = rule.predict(old[block], different)
        found = _against(predicted.view(np.uint8), raw, geometry)
        if found is None:
            return None
        number, inner = found
        params = _PARAMS.pack(rule.keeps_signs, rule.threshold, number) + inner.params
        return Encoded(params, (Part(1, bits.data), *inner.parts))

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """Return the ``length`` raw bytes; ``CorruptObjectError`` when the parts do not fit."""
        form = FORMATS.get(geometry.dtype.name)
        if form is None or base is None or base.size != length or length % form.word:
            raise CorruptObjectError("a pruned frame needs floats and a base of its size")
        old = base.view(form.unsigned)
        rule, packed, inner = _read(encoded, old)
        predicted = np.empty_like(old)
        for block in _blocks(old.size):
            stored = packed[block.start // 8 : -(-block.stop // 8)]
            bits = np.unpackbits(stored, count=block.stop - block.start, bitorder="little")
            predicted[block] = rule.predict(old[block], bits.view(np.bool_))
        rest = Encoded(encoded.params[_PARAMS.size :], encoded.parts[1:])
        return inner.decode(rest, predicted.view(np.uint8), geometry, length)


ENCODING = Pruned()


def _against(predicted: Bytes, raw: Bytes, geometry: Geometry) -> tuple[int, Encoded] | None:
    """Return the number of the encoding that says what the prediction misses, and what it says."""
    for name in _INNER:
        encoding = registry.encoding_named(name)
        if encoded := encoding.encode(raw, predicted, geometry):
            return encoding.number, encoded
    return None


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))


def _top(words: Words) -> np.unsignedinteger:
    """Return the bit of the sign."""
    found: np.unsignedinteger = words.dtype.type(1 << 8 * words.itemsize - 1)
    return found


def _magnitudes(words: Words) -> Words:
    found: Words = words & (_top(words) - words.dtype.type(1))
    return found


def _sample(words: Words) -> Words:
    step = max(_RUN, words.size // _RUNS)
    return np.concatenate(
        [words[start : start + _RUN] for start in range(0, words.size, step)] or [words]
    )


def _find(new: Words, old: Words) -> _Rule | None:
    """Return the rule that is right for most of a sample, ``None`` where few became zero."""
    new = _sample(new)
    zero = _magnitudes(new) == 0
    # First without the base: most changes leave no zeros at all.
    if np.count_nonzero(zero) <= _LEAST_GONE * new.size:
        return None
    magnitudes = _magnitudes(_sample(old))
    gone = zero & (magnitudes != 0)
    if np.count_nonzero(gone) <= _LEAST_GONE * new.size:
        return None
    shift = 8 * new.itemsize - 16
    bins = (magnitudes >> shift).astype(np.int64)
    lost, kept = (np.bincount(bins[where], minlength=_BINS) for where in (gone, ~zero))
    # A threshold at the lower edge of a bin is wrong for what is lost from there on, and for what
    # is kept below.
    wrong = np.count_nonzero(gone) - np.cumsum(lost - kept) + (lost - kept)
    signs = np.count_nonzero(new[gone])
    return _Rule(int(wrong.argmin()) << shift, bool(4 * signs > np.count_nonzero(gone)))


def _read(encoded: Encoded, old: Words) -> tuple[_Rule, Bytes, Encoding]:
    """Return what params and the first part hold, and the encoding of the others."""
    if len(encoded.params) < _PARAMS.size or not encoded.parts:
        raise CorruptObjectError("a pruned frame has other params or parts than it should")
    keeps_signs, threshold, number = _PARAMS.unpack_from(encoded.params)
    part, inner = encoded.parts[0], registry.encoding_numbered(number)
    if keeps_signs > 1 or threshold > int(_top(old)) or not inner or inner.name not in _INNER:
        raise CorruptObjectError("a pruned frame's params are not valid")
    if part.word != 1 or part.nbytes != -(-old.size // 8):
        raise CorruptObjectError("a pruned frame has not a bit for each word")
    return _Rule(threshold, bool(keeps_signs)), np.frombuffer(part.data, np.uint8), inner
