"""Encoding 6: blocks of a quantised tensor, field by field (``docs/spec.md``, Blocks).

A block holds scales and packed integers together. As one plane, the few values of the scales are
lost among the noise of the integers; a part for each field keeps them apart: Q4_1 takes 0.910 of
its size instead of 1.000, Q4_0 0.917 instead of 0.947, Q8_0 0.943 instead of 0.960.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from git_theta.core.arrays import new_array
from git_theta.core.blocks import BLOCKS, Field
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

_FIELD = struct.Struct("<BH")
_WORDS = (1, 2, 4, 8)


class Blocks:
    """Needs no base, and a dtype whose blocks are known."""

    name = "blocks"
    number = 6
    needs_base = False

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded | None:
        """Return a part for each field; ``None`` where these are not whole blocks."""
        fields = BLOCKS.get(geometry.dtype.name)
        if fields is None or not raw.size or raw.size % _size(fields):
            return None
        blocks = raw.reshape(-1, _size(fields))
        parts = (
            Part(field.word, np.ascontiguousarray(blocks[:, place]).reshape(-1).data)
            for field, place in _places(fields)
        )
        return Encoded(b"".join(_FIELD.pack(*field) for field in fields), tuple(parts))

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """Return the ``length`` raw bytes; ``CorruptObjectError`` when the parts do not fit."""
        fields = _read(encoded)
        size = _size(fields)
        if not fields or length % size:
            raise CorruptObjectError("a blocks frame does not hold whole blocks")
        raw = new_array(length)
        blocks = raw.reshape(-1, size)
        for (field, place), part in zip(_places(fields), encoded.parts, strict=True):
            taken = np.frombuffer(part.data, np.uint8)
            if part.word != field.word or taken.size != length // size * field.size:
                raise CorruptObjectError("a blocks frame has other parts than its fields")
            blocks[:, place] = taken.reshape(-1, field.size)
        return raw


ENCODING = Blocks()


def _size(fields: Sequence[Field]) -> int:
    return sum(field.size for field in fields)


def _places(fields: Sequence[Field]) -> Iterator[tuple[Field, slice]]:
    """Yield each field, and its bytes in a block."""
    start = 0
    for field in fields:
        yield field, slice(start, start + field.size)
        start += field.size


def _read(encoded: Encoded) -> list[Field]:
    if len(encoded.params) != _FIELD.size * len(encoded.parts):
        raise CorruptObjectError("a blocks frame does not have one field for each part")
    fields = [Field(*pair) for pair in _FIELD.iter_unpack(encoded.params)]
    if not all(field.word in _WORDS and field.times for field in fields):
        raise CorruptObjectError("a blocks frame has an empty field")
    return fields
