"""Encoding 5: a base in another precision, and what rounding it does not give (``docs/spec.md``).

Params: u8 dtype of the base as numbered in ``_DTYPES``. Parts: the two of a residual.

Each element is the base's, rounded to the chunk's dtype to nearest, ties to even: what ``.half()``
and ``.bfloat16()`` do, and exact the other way. Where it is NaN, the word is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from git_theta.core.layout import Encoded, Geometry
from git_theta.encodings.float_formats import FORMATS, FloatFormat, narrow, widen, widen_single
from git_theta.encodings.residual import add_residual, residual_parts
from git_theta.encodings.zigzag import Words
from git_theta.errors import CorruptObjectError

Bytes = NDArray[np.uint8]

_DTYPES = ("F16", "BF16", "F32", "F64")
_BLOCK = 1 << 16
# Of a sample: with fewer words that are right, a base of this size is a coincidence.
_LEAST_RIGHT = 1 / 16
_SAMPLE, _SAMPLES = 1 << 10, 4


class Cast:
    """Finds by itself that a base is the same tensor in another precision."""

    name = "cast"
    number = 5
    needs_base = True

    def encode(self, raw: Bytes, base: Bytes | None, geometry: Geometry) -> Encoded | None:
        """Return the dtype of the base found; ``None``, after a look at a sample, without one."""
        form = FORMATS.get(geometry.dtype.name)
        if form is None or base is None or not raw.size or raw.size % form.word:
            return None
        actual = raw.view(form.unsigned)
        for code, name in enumerate(_DTYPES):
            source = FORMATS[name]
            if source is form or base.size != actual.size * source.word:
                continue
            old = base.view(source.unsigned)
            if _resembles(old, actual, source, form):
                residual = residual_parts(cast(old, source, form), actual)
                return Encoded(bytes([code]), residual)
        return None

    def decode(
        self, encoded: Encoded, base: Bytes | None, geometry: Geometry, length: int
    ) -> Bytes:
        """Return the ``length`` raw bytes; ``CorruptObjectError`` when the parts do not fit."""
        form = FORMATS.get(geometry.dtype.name)
        if form is None or base is None or length % form.word or len(encoded.parts) != 2:
            raise CorruptObjectError("a cast frame needs floats, a base and two parts")
        if len(encoded.params) != 1 or encoded.params[0] >= len(_DTYPES):
            raise CorruptObjectError("a cast frame's params are not valid")
        source = FORMATS[_DTYPES[encoded.params[0]]]
        if base.size * form.word != length * source.word:
            raise CorruptObjectError("the base of a cast frame has another number of words")
        predicted = cast(base.view(source.unsigned), source, form)
        return add_residual(predicted, *encoded.parts).view(np.uint8)


ENCODING = Cast()


def cast(old: Words, source: FloatFormat, form: FloatFormat) -> Words:
    """Return flat words of ``source`` rounded to ``form``, 0 where they are NaN."""
    is_double = "F64" in (source.name, form.name)
    result = np.empty(old.size, form.unsigned)
    for start in range(0, old.size, _BLOCK):
        values = (widen if is_double else widen_single)(old[start : start + _BLOCK], source)
        result[start : start + _BLOCK] = np.where(np.isnan(values), 0, narrow(values, form))
    return result


def _resembles(old: Words, actual: Words, source: FloatFormat, form: FloatFormat) -> bool:
    starts = range(0, actual.size, max(_SAMPLE, actual.size // _SAMPLES))
    places = [slice(start, start + _SAMPLE) for start in starts]
    now, before = (np.concatenate([words[place] for place in places]) for words in (actual, old))
    right = np.count_nonzero(cast(before, source, form) == now)
    return bool(right >= _LEAST_RIGHT * now.size)
