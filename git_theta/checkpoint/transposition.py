"""Bases that are the transpose of a chunk: another framework's layers, or a tied matrix."""

from __future__ import annotations

from git_theta.core.arrays import Bytes, new_array
from git_theta.core.layout import Geometry, Transposition

_WORDS = (1, 2, 4, 8)


def transposed(data: Bytes, how: Transposition) -> Bytes | None:
    """Return the bytes of the transposed matrix; ``None`` where ``data`` is not whole rows."""
    row = how.word * how.columns
    if not data.size or data.size % row:
        return None
    words = data.view(f"<u{how.word}").reshape(-1, how.columns)
    turned = new_array(data.size)
    turned.view(words.dtype).reshape(words.T.shape)[...] = words.T
    return turned


def transposition_to(geometry: Geometry, length: int, base: int) -> Transposition | None:
    """Return how a base of ``base`` bytes becomes a matrix of ``geometry`` and ``length`` bytes.

    ``None`` where the chunk is no whole matrix, or the base has another number of elements.
    """
    if not is_matrix(geometry, length):
        return None
    rows, columns = geometry.shape
    word, rest = divmod(base, rows * columns)
    return Transposition(word, rows) if word in _WORDS and not rest else None


def is_matrix(geometry: Geometry, length: int) -> bool:
    """Return whether a chunk of ``length`` bytes is a whole matrix of numbers."""
    word, shape = geometry.dtype.word, geometry.shape
    return (
        len(shape) == 2
        and geometry.dtype.bits == 8 * word
        and min(shape) > 1
        and shape[0] * shape[1] * word == length
    )
