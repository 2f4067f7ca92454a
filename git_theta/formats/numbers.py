"""Runs of floats in a file that no format recognises: words of 4 or 2 bytes, and where they begin.

TensorFlow's ``.data-00000-of-00001``, the external data of an ONNX model, a chunk of a zarr array
and many others are tensors one after another, which a file beside them names. Compared byte by
byte, a fine-tune of fp32 takes 1.5 times as much as in words. The byte that holds the exponent of
a float has few values, the others nearly all: samples tell the width of the words and their phase.
A wrong guess costs size alone, and the words are integers here: a merge never computes with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log2
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from git_theta.core.layout import Source, TensorSpan

_PROBE = 4 << 10
_SMALLEST, _LARGEST = 64 << 10, 1 << 20
_BLOCKS = 512
_COLUMNS = 4
# Bits of 8. The exponents of weights have 2.5 to 5; a thousand samples of noise have 7.75.
_LOW, _HIGH = 6.0, 7.0
_ROWS = _PROBE // _COLUMNS
# What tells the columns' bytes apart, and n log2 n of every count n of one.
_OFFSETS = np.tile(np.arange(0, 256 * _COLUMNS, 256), _ROWS)
_MOST_BITS = log2(_ROWS)
_SELF_INFORMATION = np.arange(_ROWS + 1) * np.log2(np.maximum(np.arange(_ROWS + 1), 1))


class _Words(NamedTuple):
    """Words of ``width`` bytes, which begin ``phase`` bytes after a multiple of it."""

    width: int
    phase: int


def runs(source: Source) -> tuple[TensorSpan, ...]:
    """Return the runs of words in a file, in order; none where it has no floats."""
    found: list[TensorSpan] = []
    for words, start, stop in _stretches(source):
        first = start + (words.phase - start) % words.width
        count = (stop - first) // words.width
        name = f"numbers.{len(found)}"
        dtype = f"U{8 * words.width}"
        found.append(TensorSpan(name, dtype, (count,), first, count * words.width))
    return tuple(found)


def _stretches(source: Source) -> Iterator[tuple[_Words, int, int]]:
    """Yield words, and from where to where the file has them.

    What looks otherwise in one block only is a bias, a counter or zeros within a run.
    """
    size = _block_size(source.size)
    starts = range(0, source.size, size)
    guesses = [_guess(source, start) for start in starts]
    current, begin = None, 0
    for at, (start, guess) in enumerate(zip(starts, guesses, strict=True)):
        lasts = guess is not None and guess in guesses[at + 1 : at + 2]
        is_last = at == len(guesses) - 1
        if guess is not None and guess != current and (lasts or (is_last and current is None)):
            if current:
                yield current, begin, start
            current, begin = guess, start
    if current:
        yield current, begin, source.size


def _block_size(size: int) -> int:
    """Return a power of two: a file has up to 512 blocks, until they are as large as may be."""
    wanted = 1 << max(0, (size - 1) // _BLOCKS).bit_length()
    return min(max(wanted, _SMALLEST), _LARGEST)


def _guess(source: Source, start: int) -> _Words | None:
    """Return the words that a sample at ``start``, a multiple of 4, looks like."""
    length = min(_PROBE, source.size - start) & -_COLUMNS
    if length < _PROBE:
        return None
    data = np.frombuffer(source.read(start, length), np.uint8)
    entropies = _entropies(data)
    low = [column for column, bits in enumerate(entropies) if bits < _LOW]
    if sum(bits > _HIGH for bits in entropies) != _COLUMNS - len(low):
        return None
    if len(low) == 1:
        return _Words(4, (low[0] + 1) % 4)
    return _Words(2, (low[0] + 1) % 2) if len(low) == 2 and low[1] - low[0] == 2 else None


def _entropies(data: NDArray[np.uint8]) -> list[float]:
    """Return the bits that a byte of each column has in a sample.

    All columns at once: a file has up to five hundred samples, and numpy's calls were most of it.
    """
    counts = np.bincount(data + _OFFSETS, minlength=256 * _COLUMNS)
    sums: list[float] = _SELF_INFORMATION[counts].reshape(_COLUMNS, 256).sum(axis=1).tolist()
    return [_MOST_BITS - total / _ROWS for total in sums]
