"""What a prediction missed: differences of words, of the elements missed or of all.

Two parts, gaps and values. Values are the differences (``difference.py``) of the actual words from
the predicted ones. Where gaps are empty and values are not, they cover every element; otherwise
those at the positions that the gaps (``gaps.py``) stand for.

Where a share p of the elements is missed at random, Huffman coded gaps come within a few percent
of the entropy, H(p) bits per element, for any p that is stored so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from git_theta.core.layout import Part
from git_theta.encodings.gaps import from_gaps, to_gaps
from git_theta.encodings.zigzag import Words, difference, restore
from git_theta.errors import CorruptObjectError

# At this share a gap costs 2.4 bits beside its value; dense, a right element costs 1 bit.
_DENSE_SHARE = 0.4


def residual_parts(predicted: Words, actual: Words) -> tuple[Part, Part]:
    """Gaps and values that turn ``predicted`` into ``actual``, both flat words of floats."""
    missed = np.flatnonzero(predicted != actual)
    dense = missed.size > _DENSE_SHARE * actual.size
    if not dense:
        predicted, actual = predicted[missed], actual[missed]
    values = difference(actual, predicted)
    return part_of(to_gaps(missed[: 0 if dense else missed.size])), part_of(values)


def add_residual(predicted: Words, gaps: Part, values: Part) -> Words:
    """Return the actual words, flat like ``predicted``, which it may change.

    Raises ``CorruptObjectError`` when the parts do not fit the prediction.
    """
    if gaps.word != 1 or values.word != predicted.dtype.itemsize:
        raise CorruptObjectError("a residual has parts of the wrong width")
    steps = np.frombuffer(values.data, predicted.dtype)
    if gaps.nbytes == 0 and steps.size == predicted.size:
        return restore(steps, predicted)
    where = from_gaps(np.frombuffer(gaps.data, np.uint8), predicted.size)
    if where.size != steps.size:
        raise CorruptObjectError("a residual does not have one value for every gap")
    predicted[where] = restore(steps, predicted[where])
    return predicted


def part_of(words: NDArray[Any]) -> Part:
    """Contiguous words of any shape as a part that shares their memory."""
    return Part(words.dtype.itemsize, words.reshape(-1).view(np.uint8).data)
