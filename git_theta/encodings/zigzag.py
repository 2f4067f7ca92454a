"""Differences of words that are small where the values are near each other.

A word is subtracted as the integer that its bits are. For a float whose sign stays that is the
number of representable values between the two, positive where its magnitude grew: nearby floats
differ by small integers, and weights that decayed together by negative ones. Subtraction wraps
around, and zigzag (0, -1, 1, -2, ...) leaves the high bytes of small differences zero.

All functions take flat arrays of one length and work on bits, so they lose nothing: -0.0 and NaNs
are integers like any other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta.core import kernels
from git_theta.core.dtypes import DType

Bytes = NDArray[np.uint8]
Words = NDArray[Any]
"""Flat little-endian unsigned words of 1, 2, 4 or 8 bytes."""


def word_size(dtype: DType, length: int) -> int:
    """Bytes of the words in ``length`` bytes of ``dtype``: 1 where the dtype's do not fit."""
    return 1 if length % dtype.word else dtype.word


def as_words(data: NDArray[Any], size: int) -> Words:
    """Return ``data`` as words of ``size`` bytes, not copied."""
    return data.view(np.dtype(f"<u{size}"))


def difference(new: Words, old: Words) -> Words:
    """Return the words that ``restore`` turns back into ``new``, given ``old``."""
    new, old = np.ascontiguousarray(new), np.ascontiguousarray(old)
    found = np.empty_like(new)
    kernels.difference(new.reshape(-1), old.reshape(-1), found.reshape(-1))
    return found


def restore(differences: Words, old: Words) -> Words:
    """Return the words whose ``difference`` from ``old`` this is."""
    differences, old = np.ascontiguousarray(differences), np.ascontiguousarray(old)
    words = np.empty_like(old)
    kernels.restore(differences.reshape(-1), old.reshape(-1), words.reshape(-1))
    return words


def fit(base: Bytes, length: int) -> Bytes:
    """Return ``base`` cut to ``length`` bytes, or continued with zeros up to them.

    So a tensor that lost or gained rows at its end has its old rows as the base of the new ones.
    """
    if base.size >= length:
        return base[:length]
    return np.concatenate([base, np.zeros(length - base.size, np.uint8)])
