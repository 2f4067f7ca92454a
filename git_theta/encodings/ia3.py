"""Encoding 4: a base scaled along an axis, and what that does not reproduce (``docs/spec.md``).

Params: u8 axis (0: a factor for every row, 1: one for every column), u8 dtype of the factors as
numbered in ``_DTYPES``, u32 columns. Parts: the factors, and the two of a residual.

Each element is the product of the base's and its factor, rounded to the dtype: computed in
float32, in float64 where either is F64. Where it is NaN, the word is that of the base.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta.core.layout import Encoded, Geometry
from git_theta.encodings.float_formats import FORMATS, FloatFormat, narrow, widen, widen_single
from git_theta.encodings.residual import add_residual, part_of, residual_parts
from git_theta.encodings.rows import Rows
from git_theta.encodings.scaling import find_scales
from git_theta.encodings.zigzag import Words
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

_HEAD = struct.Struct("<BBI")
_DTYPES = ("F16", "BF16", "F32", "F64")
ROWS, COLUMNS = 0, 1
_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True)
class Scales:
    """Factors as they are stored: flat ``words`` of ``dtype``, one per row or per column."""

    axis: int
    dtype: str
    words: Words


def scale(base: Words, scales: Scales, form: FloatFormat, block: int = _BLOCK) -> Words:
    """Return the words of ``base`` (rows, columns) scaled, ``block`` elements at a time."""
    is_double = "F64" in (form.name, scales.dtype)
    values = (widen if is_double else widen_single)(scales.words, FORMATS[scales.dtype])
    result = np.empty_like(base)
    step = max(1, block // max(1, base.shape[1]))
    with np.errstate(all="ignore"):
        for start in range(0, base.shape[0], step):
            old = base[start : start + step]
            factor = values[start : start + step, None] if scales.axis == ROWS else values
            product = (widen if is_double else widen_single)(old, form) * factor
            words, undefined = narrow(product, form), np.isnan(product)
            result[start : start + step] = np.where(undefined, old, words)
    return result


class IA3:
    """Finds by itself that a change is a scaling of rows or columns, as after merging an IA3.

    A vector is one row: its scaling by one number is found.
    """

    name = "ia3"
    number = 4
    needs_base = True

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded | None:
        """Return the factors found; ``None``, after a look at a sample, where there are none."""
        rows = Rows.of(raw, base, geometry)
        found = None if rows is None else find_scales(rows.base, rows.actual, rows.form)
        if rows is None or found is None:
            return None
        axis, values = found
        dtype = "F64" if rows.form.name == "F64" else "F32"
        return _encoded(rows, Scales(axis, dtype, narrow(values, FORMATS[dtype])))

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """Return the ``length`` raw bytes; ``CorruptObjectError`` when the parts do not fit."""
        form = FORMATS.get(geometry.dtype.name)
        if form is None or base is None or base.size != length or len(encoded.parts) != 3:
            raise CorruptObjectError("an ia3 frame needs floats, a base of its size, three parts")
        scales, columns = _read(encoded)
        if columns == 0 or length % (columns * form.word):
            raise CorruptObjectError("an ia3 frame's rows do not fit its chunk")
        old = base.view(form.unsigned).reshape(-1, columns)
        if scales.words.size != old.shape[scales.axis]:
            raise CorruptObjectError("the factors of an ia3 frame do not fit its chunk")
        predicted = scale(old, scales, form).reshape(-1)
        return add_residual(predicted, *encoded.parts[1:]).view(np.uint8)


ENCODING = IA3()


def encode_with_scales(
    raw: Bytes, base: Bytes | None, geometry: Geometry, scales: Scales
) -> Encoded | None:
    """Return a chunk whose base was scaled by known factors, which are stored as they are.

    Factors per row are those of the whole tensor's rows. ``None`` where the chunk is not whole
    rows of floats with a base of its length.
    """
    rows = Rows.of(raw, base, geometry)
    if rows is None:
        return None
    if scales.axis == ROWS:
        here = scales.words[rows.first : rows.first + rows.actual.shape[0]]
        scales = Scales(ROWS, scales.dtype, here)
    return _encoded(rows, scales)


def _encoded(rows: Rows, scales: Scales) -> Encoded:
    predicted = scale(rows.base, scales, rows.form)
    head = _HEAD.pack(scales.axis, _DTYPES.index(scales.dtype), rows.actual.shape[1])
    residual = residual_parts(predicted.reshape(-1), rows.actual.reshape(-1))
    return Encoded(head, (part_of(np.ascontiguousarray(scales.words)), *residual))


def _read(encoded: Encoded) -> tuple[Scales, int]:
    """Return the factors that params and part hold, and the number of columns."""
    if len(encoded.params) != _HEAD.size:
        raise CorruptObjectError("an ia3 frame's params are of the wrong size")
    axis, dtype, columns = _HEAD.unpack(encoded.params)
    part = encoded.parts[0]
    if axis not in (ROWS, COLUMNS) or dtype >= len(_DTYPES):
        raise CorruptObjectError("an ia3 frame's params are not valid")
    form = FORMATS[_DTYPES[dtype]]
    if part.word != form.word:
        raise CorruptObjectError("an ia3 frame's factors are of the wrong dtype")
    return Scales(axis, form.name, np.frombuffer(part.data, form.unsigned)), columns
