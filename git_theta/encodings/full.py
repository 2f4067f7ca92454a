"""Encoding 0: the chunk itself (``docs/spec.md``, Full)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]


class Full:
    """One part with all bytes, in words of the dtype; in single bytes where they do not fit."""

    name = "full"
    number = 0
    needs_base = False

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded:
        """The chunk as one part, which shares its memory."""
        word = geometry.dtype.word
        return Encoded(b"", (Part(word if raw.size % word == 0 else 1, raw.data),))

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """The part's bytes, sharing its memory (read-only where that is)."""
        if encoded.params or len(encoded.parts) != 1 or encoded.parts[0].nbytes != length:
            raise CorruptObjectError(f"a full frame does not hold exactly {length} bytes")
        return np.frombuffer(encoded.parts[0].data, np.uint8)


ENCODING = Full()
