"""Of what fields the blocks of quantised dtypes are, byte by byte.

Source: the structures ``block_q4_0`` and so on of ggml-common.h in https://github.com/ggml-org/ggml.
"""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """``times`` words of ``word`` bytes each, in every block."""

    word: int
    times: int

    @property
    def size(self) -> int:
        """Bytes in a block."""
        return self.word * self.times


def _fields(*numbers: int | tuple[int, int]) -> tuple[Field, ...]:
    """Return fields of so many bytes; a pair is bytes of a word and their number."""
    return tuple(Field(*each) if isinstance(each, tuple) else Field(1, each) for each in numbers)


_HALF = (2, 1)

BLOCKS = {
    "GGUF_Q4_0": _fields(_HALF, 16),
    "GGUF_Q4_1": _fields(_HALF, _HALF, 16),
    "GGUF_Q5_0": _fields(_HALF, 4, 16),
    "GGUF_Q5_1": _fields(_HALF, _HALF, 4, 16),
    "GGUF_Q8_0": _fields(_HALF, 32),
    "GGUF_Q2_K": _fields(16, 64, _HALF, _HALF),
    "GGUF_Q3_K": _fields(32, 64, 12, _HALF),
    "GGUF_Q4_K": _fields(_HALF, _HALF, 12, 128),
    "GGUF_Q5_K": _fields(_HALF, _HALF, 12, 32, 128),
    "GGUF_Q6_K": _fields(128, 64, 16, _HALF),
    "GGUF_Q8_K": _fields((4, 1), 256, (2, 16)),
    "GGUF_IQ2_XXS": _fields(_HALF, (2, 32)),
    "GGUF_IQ2_XS": _fields(_HALF, (2, 32), 8),
    "GGUF_IQ2_S": _fields(_HALF, 64, 8, 8),
    "GGUF_IQ3_XXS": _fields(_HALF, 64, (4, 8)),
    "GGUF_IQ3_S": _fields(_HALF, 64, 8, 32, 4),
    "GGUF_IQ1_S": _fields(_HALF, 32, (2, 8)),
    "GGUF_IQ1_M": _fields(32, 16, 8),
    "GGUF_IQ4_NL": _fields(_HALF, 16),
    "GGUF_IQ4_XS": _fields(_HALF, _HALF, 4, 128),
    "GGUF_TQ1_0": _fields(48, 4, _HALF),
    "GGUF_TQ2_0": _fields(64, _HALF),
    "GGUF_MXFP4": _fields(1, 16),
    "GGUF_NVFP4": _fields(4, 32),
    "GGUF_Q1_0": _fields(_HALF, 16),
}
"""The fields of a block, by dtype. One that is not here is stored as the bytes that it is."""
