"""Byte planes: plane k holds byte k (the least significant first) of every word.

Bytes of equal significance resemble each other (exponents above all), so each plane compresses
as what it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from git_theta.core import kernels
from git_theta.core.arrays import new_array
from git_theta.core.layout import Buffer

Bytes = NDArray[np.uint8]

# Many blocks, because what changed in an embedding matrix is unevenly spread: from 8 blocks of 16
# KiB its delta was predicted 36 % too large, from 64 of 4 KiB 20 %, elsewhere within 4 %. Takes
# 1 to 5 ms a plane.
SAMPLE_WORDS, SAMPLE_BLOCKS = 4096, 64


def split(data: Buffer | Bytes, word: int, exponent: int = 0) -> list[Bytes]:
    """Return the ``word`` planes of ``data``, whose length is a multiple of ``word``.

    For one-byte words the plane is ``data`` itself, not a copy. See ``Part`` for ``exponent``.
    """
    flat = np.frombuffer(data, np.uint8)
    if word == 1:
        return [flat]
    planes = new_array(flat.size).reshape(word, flat.size // word)
    kernels.split(flat.view(f"<u{word}"), exponent, planes)
    return list(planes)


def join(planes: Sequence[Bytes], exponent: int = 0) -> Bytes:
    """Return the words whose planes these are, as flat bytes; the inverse of ``split``."""
    word, count = len(planes), planes[0].size
    if word == 1:
        return planes[0]
    flat = new_array(word * count)
    kernels.join(planes, exponent, flat.view(f"<u{word}"))
    return flat


def sample(data: Buffer | Bytes, word: int, count: int = SAMPLE_BLOCKS) -> Bytes:
    """``count`` evenly spaced blocks of words, as flat bytes; all of ``data`` where it is short."""
    words = np.frombuffer(data, np.uint8).reshape(-1, word)
    if len(words) <= SAMPLE_WORDS * count:
        return words.reshape(-1)
    starts = np.linspace(0, len(words) - SAMPLE_WORDS, count).astype(np.int64)
    return np.concatenate([words[start : start + SAMPLE_WORDS] for start in starts]).reshape(-1)
