"""Encoding 3: two factors of the change, and what they do not reproduce (``docs/spec.md``).

Params: u8 arithmetic, u8 dtype to which the change is rounded (0: none), u8 dtype of the left
factor, u8 of the right, u16 rank, u32 columns, then one f64 scale per rank. Dtypes are numbered
as in ``_DTYPES``. Parts: the left factor (rank, rows), the right one (rank, columns), and the two
of a residual. The chunk is whole rows of a matrix; ``factors.py`` says how it is evaluated.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings.change import Change, spread
from git_theta.encodings.factorization import factorise
from git_theta.encodings.factors import INTEGERS, Arithmetic, Factors, Matrix, predict
from git_theta.encodings.float_formats import FORMATS
from git_theta.encodings.quantising import quantise
from git_theta.encodings.rank_detection import find_signal
from git_theta.encodings.residual import add_residual, part_of, residual_parts
from git_theta.encodings.rows import Rows
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

_HEAD = struct.Struct("<BBBBHI")
_DTYPES = (None, *INTEGERS, "F16", "BF16", "F32", "F64")
_SAMPLE = 1 << 16


class LowRank:
    """Finds by itself that a change is of low rank up to rounding, as after merging a LoRA."""

    name = "low-rank"
    number = 3
    needs_base = True

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded | None:
        """Factors found in the change; ``None``, after a look at a sample, where there are none."""
        rows = Rows.of(raw, base, geometry)
        if rows is None:
            return None
        with np.errstate(all="ignore"):
            factors = _find(rows)
        return None if factors is None else _encoded(rows, factors)

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """Return the ``length`` raw bytes; ``CorruptObjectError`` when the parts do not fit."""
        form = FORMATS.get(geometry.dtype.name)
        if form is None or base is None or base.size != length or len(encoded.parts) != 4:
            raise CorruptObjectError(
                "a low-rank frame needs floats, a base of its size, four parts"
            )
        factors, columns = read_factors(encoded)
        if factors.scales.size > min(factors.left.words.shape[1], columns):
            raise CorruptObjectError("a low-rank frame's rank is larger than its matrix")
        if columns == 0 or length != factors.left.words.shape[1] * columns * form.word:
            raise CorruptObjectError("the factors of a low-rank frame do not fit its chunk")
        predicted = predict(base.view(form.unsigned).reshape(-1, columns), factors, form)
        return add_residual(predicted.reshape(-1), *encoded.parts[2:]).view(np.uint8)

    def work(self, encoded: Encoded, length: int) -> int:
        """Return what decoding takes: for each rank, a pass over all of the chunk."""
        if len(encoded.params) < _HEAD.size or not encoded.parts:
            return 0  # which decode refuses
        rank = int(_HEAD.unpack_from(encoded.params)[4])
        return rank * length


ENCODING = LowRank()


def encode_with_factors(
    raw: Bytes,
    base: Bytes | None,
    geometry: Geometry,
    left: Matrix,
    right: Matrix,
    scale: float,
) -> Encoded | None:
    """Return a chunk to which ``scale`` times the product of two known factors was added.

    ``left`` is (r, rows of the whole tensor), ``right`` (r, columns); they are stored as they are.
    Of the ways to evaluate them, the one that reproduces most of a sample is taken. ``None`` where
    the chunk is not whole rows of floats with a base of its length, and where there are
    more ranks than rows or columns: such factors save nothing.
    """
    rows = Rows.of(raw, base, geometry)
    if rows is None:
        return None
    if left.words.shape[0] > min(rows.actual.shape):
        return None
    scales = np.full(left.words.shape[0], scale)
    here = slice(rows.first, rows.first + rows.actual.shape[0])
    ways: list[tuple[Arithmetic, str | None]] = [
        (Arithmetic.FUSED, None),
        *((Arithmetic.FUSED, dtype) for dtype in dict.fromkeys((rows.form.name, left.dtype))),
        (Arithmetic.DOUBLE, None),
    ]
    candidates = (Factors(left, right, scales, *way).rows(here) for way in ways)
    return _encoded(rows, min(candidates, key=lambda factors: _missed(rows, factors)))


def rank_of(params: bytes) -> int:
    """Return the rank that a frame's params state."""
    if len(params) < _HEAD.size:
        raise CorruptObjectError("a low-rank frame's params are too short")
    return int(_HEAD.unpack_from(params)[4])


def _find(rows: Rows) -> Factors | None:
    change = Change(rows.base, rows.actual, rows.form)
    try:
        signal = find_signal(change)
        fitted = None if signal is None else factorise(change, signal)
        if fitted is None:
            return None
        return quantise(rows.base, rows.actual, rows.form, *fitted, change.unit)
    except np.linalg.LinAlgError:  # numbers so far apart that squares overflow
        return None


def _missed(rows: Rows, factors: Factors) -> int:
    """Elements of a sample of rows that the factors do not reproduce."""
    chosen = spread(rows.actual.shape[0], max(1, _SAMPLE // rows.actual.shape[1]))
    predicted = predict(rows.base[chosen], factors.rows(chosen), rows.form)
    return int(np.count_nonzero(predicted != rows.actual[chosen]))


def _encoded(rows: Rows, factors: Factors) -> Encoded:
    predicted = predict(rows.base, factors, rows.form)
    dtypes = (factors.rounded, factors.left.dtype, factors.right.dtype)
    rank, columns = factors.right.words.shape
    head = _HEAD.pack(factors.arithmetic, *map(_DTYPES.index, dtypes), rank, columns)
    matrices = (part_of(np.ascontiguousarray(m.words)) for m in (factors.left, factors.right))
    residual = residual_parts(predicted.reshape(-1), rows.actual.reshape(-1))
    return Encoded(head + factors.scales.astype("<f8").tobytes(), (*matrices, *residual))


def read_factors(encoded: Encoded) -> tuple[Factors, int]:
    """Return the factors that params and parts hold, and the number of columns.

    Raises ``CorruptObjectError`` where they do not fit each other.
    """
    if len(encoded.params) < _HEAD.size:
        raise CorruptObjectError("a low-rank frame's params are too short")
    number, rounded, *dtypes, rank, columns = _HEAD.unpack_from(encoded.params)
    scales = np.frombuffer(encoded.params[_HEAD.size :], np.uint8)
    if number not in iter(Arithmetic) or rounded >= len(_DTYPES) or scales.size != 8 * rank:
        raise CorruptObjectError("a low-rank frame's params are not valid")
    left, right = map(_matrix, encoded.parts, dtypes, (rank, rank))
    if _DTYPES[rounded] in INTEGERS or right.words.shape[1] != columns:
        raise CorruptObjectError("a low-rank frame's params do not fit its parts")
    arithmetic = Arithmetic(number)
    return Factors(left, right, scales.view("<f8"), arithmetic, _DTYPES[rounded]), columns


def _matrix(part: Part, number: int, rank: int) -> Matrix:
    dtype = _DTYPES[number] if number < len(_DTYPES) else None
    word = None if dtype is None else INTEGERS.get(dtype) or FORMATS[dtype].word
    if dtype is None or word != part.word or rank == 0 or part.nbytes % (rank * word):
        raise CorruptObjectError("a factor of a low-rank frame is of the wrong size or dtype")
    return Matrix(dtype, np.frombuffer(part.data, f"<u{word}").reshape(rank, -1))
