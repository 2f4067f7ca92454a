"""LoRA adapters compared by what they add to a model: the products of their factors.

B A stays as it is when A is doubled and B halved, and when both have other bases of the same space:
figures of the factors themselves say nothing of the adapter. No product is ever made: after QR
decompositions of the factors, inner products are those of matrices of the rank's size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from git_theta.adapters import Config, Fields, beyond_factors, config_of
from git_theta.commands.diff.changes import Tensor
from git_theta.commands.diff.floats import is_number, widen
from git_theta.core.arrays import Bytes
from git_theta.errors import ThetaError
from git_theta.manifest import Chunk
from git_theta.merge.planning.low_rank_names import DOWN, UP, Place, place_of

Doubles = NDArray[np.float64]

# Work on factors grows with the square of the rank: a stranger's may be of any.
_MAX_RANK = 2048


class Content(Protocol):
    """Where the raw bytes of chunks come from."""

    def read(self, wanted: Sequence[Chunk]) -> list[Bytes]:
        """Return the bytes of each chunk, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Pair:
    """The factors of one module: ``down`` is A ``[r, in, ...]``, ``up`` is B ``[out, r, ...]``.

    ``scale`` is what their product is multiplied by.
    """

    name: str
    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Number of rows of A."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the product."""
        return self.up.shape[0], math.prod(self.down.shape[1:])

    @property
    def names(self) -> tuple[str, str]:
        """Names of the two tensors."""
        return self.down.name, self.up.name


@dataclass(frozen=True, slots=True)
class Factors:
    """The update ``up`` (rows, r) times ``down`` (r, columns), scaled already."""

    up: Doubles
    down: Doubles


def pairs_of(tensors: Iterable[Tensor], fields: Fields | None) -> dict[str, Pair]:
    """Return the pairs of factors among an adapter's tensors, by module.

    None where the configuration ``fields`` is missing or cannot be read, or makes the update more
    than a product. A module that has more than two factors (a bias) is left out.
    """
    config = _config(fields)
    if config is None:
        return {}
    found: dict[str, dict[str, Tensor]] = {}
    places: dict[str, Place] = {}
    for tensor in tensors:
        if place := place_of(tensor.name):
            key = f"{place.stem}.lora" + (f".{place.adapter}" if place.adapter else "")
            found.setdefault(key, {})[place.role] = tensor
            places[key] = place
    return {
        key: pair
        for key, roles in found.items()
        if (pair := _pair(key, places[key].module, roles, config))
    }


def _config(fields: Fields | None) -> Config | None:
    try:
        if fields is None or fields.get("peft_type") != "LORA" or beyond_factors(fields):
            return None
        return config_of(fields)
    except ThetaError:
        return None


def _pair(name: str, module: str, roles: dict[str, Tensor], config: Config) -> Pair | None:
    if set(roles) != {DOWN, UP}:
        return None
    down, up = roles[DOWN], roles[UP]
    if not (_is_matrix(down) and _is_matrix(up)):
        return None
    if down.shape[0] != up.shape[1] or math.prod(up.shape[2:]) != 1:
        return None
    if down.shape[0] > _MAX_RANK:
        return None
    try:
        scale = config.scale_of(module, down.shape[0])
    except ThetaError:
        return None
    return Pair(name, down, up, scale)


def _is_matrix(tensor: Tensor) -> bool:
    return (
        is_number(tensor.dtype)
        and tensor.is_plain
        and len(tensor.shape) > 1
        and math.prod(tensor.shape) > 0
    )


def read_factors(pair: Pair, content: Content) -> Factors:
    """Return the values of a pair, as float64; what ``content`` raises passes through."""
    up, down = (_values(tensor, content) for tensor in (pair.up, pair.down))
    return Factors(
        pair.scale * up.reshape(pair.shape[0], pair.rank), down.reshape(pair.rank, pair.shape[1])
    )


def _values(tensor: Tensor, content: Content) -> Doubles:
    return widen(np.concatenate(content.read(tensor.chunks)), tensor.dtype)


def cores(products: Sequence[Factors]) -> list[Doubles]:
    """Return small matrices whose sums, differences and inner products are the products'.

    All products are of one shape. The matrices are as large as all ranks together at most.
    """
    ups = _triangle([each.up for each in products])
    downs = _triangle([each.down.T for each in products])
    ends = [*accumulate((len(each.down) for each in products), initial=0)]
    return [ups[:, first:last] @ downs[:, first:last].T for first, last in pairwise(ends)]


def _triangle(columns: Sequence[Doubles]) -> Doubles:
    return np.asarray(np.linalg.qr(np.hstack(columns), mode="r"), np.float64)
