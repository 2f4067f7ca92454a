"""Encoding 0: the chunk itself (``docs/spec.md``, Full)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings.zigzag import word_size
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]


# By dtype, bits of the exponent of floats in which it straddles bytes: with the sign moved below
# them, its byte has a third less entropy. bf16 weights take 0.6678 of their size, not 0.6736, fp32
# 0.8330, not 0.8354.
_EXPONENTS = {"BF16": 8, "F32": 8, "C64": 8, "F64": 11, "C128": 11}


class Full:
    """One part with all bytes, in words of the dtype; in single bytes where they do not fit."""

    name = "full"
    number = 0
    needs_base = False

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded:
        """Return the chunk as one part, which shares its memory."""
        word = word_size(geometry.dtype, raw.size)
        exponent = _EXPONENTS.get(geometry.dtype.name, 0) if word > 1 else 0
        return Encoded(b"", (Part(word, raw.data, exponent),))

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """Return the part's bytes, sharing its memory (read-only where that is)."""
        if encoded.params or len(encoded.parts) != 1 or encoded.parts[0].nbytes != length:
            raise CorruptObjectError(f"a full frame does not hold exactly {length} bytes")
        return np.frombuffer(encoded.parts[0].data, np.uint8)


ENCODING = Full()
