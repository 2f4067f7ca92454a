"""Updates of one parameter, and the encoding that stores each as it is.

Applying it is exactly reproducible: the arithmetic is that of the encodings, so an applied update
is stored without any residual.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from git_theta.adapters.stored import Stored
from git_theta.core.arrays import Bytes
from git_theta.core.layout import Encoded, Geometry
from git_theta.encodings.factors import Arithmetic, Factors, Matrix, predict
from git_theta.encodings.float_formats import FORMATS
from git_theta.encodings.ia3 import Scales, encode_with_scales, scale
from git_theta.encodings.low_rank import encode_with_factors
from git_theta.encodings.rows import columns_of


class Update(Protocol):
    """The update of one parameter of a checkpoint."""

    @property
    def parameter(self) -> str:
        """Its name in the checkpoint."""
        ...

    @property
    def encoding(self) -> str | None:
        """The name of the encoding that ``encode`` uses, ``None`` where it uses none."""
        ...

    def apply(self, base: Bytes, dtype: str, shape: tuple[int, ...]) -> Bytes:
        """Return the updated parameter's raw bytes, given its present ones."""
        ...

    def encode(self, raw: Bytes, base: Bytes, geometry: Geometry) -> Encoded | None:
        """Return a chunk to which the update was applied, exactly.

        ``None`` where it does not suit.
        """
        ...


@dataclass(frozen=True, slots=True)
class LowRank:
    """Adds ``scale`` times the product of ``left`` (r, rows) and ``right`` (r, columns).

    The parameter is seen as the matrix of its first dimension by all the others, a vector as one
    row.
    """

    parameter: str
    left: Matrix
    right: Matrix
    scale: float
    encoding: str | None = "low-rank"

    def apply(self, base: Bytes, dtype: str, shape: tuple[int, ...]) -> Bytes:
        """Return the sum, computed as PEFT does on a CPU: in float32, in float64 for F64."""
        form = FORMATS[dtype]
        is_double = "F64" in (dtype, self.left.dtype, self.right.dtype)
        scales = np.full(self.left.words.shape[0], self.scale)
        arithmetic = Arithmetic.DOUBLE if is_double else Arithmetic.FUSED
        factors = Factors(self.left, self.right, scales, arithmetic)
        rows = base.view(form.unsigned).reshape(-1, columns_of(shape))
        return _flat(predict(rows, factors, form))

    def encode(self, raw: Bytes, base: Bytes, geometry: Geometry) -> Encoded | None:
        """Return the factors as they are, and what they do not reproduce."""
        return encode_with_factors(raw, base, geometry, self.left, self.right, self.scale)


@dataclass(frozen=True, slots=True)
class Scaling:
    """Multiplies the rows or columns of a parameter, seen as in ``LowRank``, by factors."""

    parameter: str
    scales: Scales
    encoding: str | None = "ia3"

    def apply(self, base: Bytes, dtype: str, shape: tuple[int, ...]) -> Bytes:
        """Return the products, each rounded once."""
        form = FORMATS[dtype]
        rows = base.view(form.unsigned).reshape(-1, columns_of(shape))
        return _flat(scale(rows, self.scales, form))

    def encode(self, raw: Bytes, base: Bytes, geometry: Geometry) -> Encoded | None:
        """Return the factors as they are, and what they do not reproduce."""
        return encode_with_scales(raw, base, geometry, self.scales)


@dataclass(frozen=True, slots=True)
class Replacement:
    """Gives a parameter new values, which are of its dtype and shape."""

    parameter: str
    values: Stored
    encoding: str | None = None

    def apply(self, base: Bytes, dtype: str, shape: tuple[int, ...]) -> Bytes:
        """Return the new values."""
        return _flat(self.values.words)

    def encode(self, raw: Bytes, base: Bytes, geometry: Geometry) -> Encoded | None:
        """``None``: no encoding is better for it than others."""
        return None


@dataclass(frozen=True, slots=True)
class Sparse:
    """Gives the elements at the flat ``indices`` new values, which are of the parameter's dtype."""

    parameter: str
    indices: NDArray[np.int64]
    values: Stored
    encoding: str | None = None

    def apply(self, base: Bytes, dtype: str, shape: tuple[int, ...]) -> Bytes:
        """Return the parameter with its new elements."""
        words = self.values.words
        result = base.view(words.dtype).copy()
        result[self.indices] = words
        return _flat(result)

    def encode(self, raw: Bytes, base: Bytes, geometry: Geometry) -> Encoded | None:
        """``None``: the sparse encoding finds the positions by itself."""
        return None


def chain(first: Replacement, then: Update, shape: tuple[int, ...]) -> Replacement:
    """Both updates of one parameter as one: the new values, updated."""
    values = first.values
    words = then.apply(_flat(values.words), values.dtype, shape).view(values.words.dtype)
    return Replacement(first.parameter, Stored(values.dtype, words.reshape(values.shape)))


def _flat(words: NDArray[Any]) -> Bytes:
    return np.ascontiguousarray(words).reshape(-1).view(np.uint8)
