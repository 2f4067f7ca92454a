"""A chunk and its base as whole rows of a matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta.core.dtypes import element_count
from git_theta.core.layout import Geometry
from git_theta.encodings.float_formats import FORMATS, FloatFormat
from git_theta.encodings.zigzag import Words

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rows:
    """``actual`` and ``base`` as words (rows, columns), the tensor's from row ``first`` on.

    A tensor of more than two dimensions is the matrix of its first by all the others; a vector is
    one row.
    """

    form: FloatFormat
    actual: Words
    base: Words
    first: int

    @classmethod
    def of(cls, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Rows | None:
        """``None`` where the chunk is not whole rows of floats with a base of its length."""
        form = FORMATS.get(geometry.dtype.name)
        if form is None or base is None or base.size != raw.size or raw.size % form.word:
            return None
        columns = columns_of(geometry.shape)
        if columns == 0 or raw.size == 0 or raw.size // form.word % columns:
            return None
        if geometry.first % columns:
            return None
        actual, old = (data.view(form.unsigned).reshape(-1, columns) for data in (raw, base))
        return cls(form, actual, old, geometry.first // columns)


def columns_of(shape: tuple[int, ...]) -> int:
    """Columns of the matrix that a tensor of ``shape`` is seen as."""
    return element_count(shape[1:] if len(shape) > 1 else shape)
