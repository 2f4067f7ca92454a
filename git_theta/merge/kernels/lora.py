"""Pairs of LoRA factors merged as what they mean: their product.

Averaging the factors A and B each on its own gives products of one contributor's B with another's
A: an error of 82 % was measured. Here a pair is a unit. Functions compute in float32 (float64 for
float64 factors) and round once to the factors' dtype.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from git_theta.errors import MergeError
from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.slices import content_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LoraFactors:
    """The change ``scale`` B A of a weight, ``scale`` finite and not 0.

    ``up`` is B ``[out, r, ...]``, ``down`` is A ``[r, in, ...]``. Of a convolution, B has axes of
    length 1 in the end, and A the kernel's. ``lost`` is the share of what they stand for, by
    Frobenius norm, that they do not reproduce.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0
    lost: float = 0.0

    @property
    def rank(self) -> int:
        """Rows of A."""
        return len(self.down)


def concatenated(
    units: Sequence[LoraFactors], weights: Sequence[float], scale: float = 1.0
) -> LoraFactors:
    """Return factors of rank Σ ri for the update Σ wi si Bi Ai, in the units' dtypes.

    Exact but for the rounding of wi si / ``scale`` Bi. The order of the units changes no bit.
    Raise ``MergeError`` for units that do not fit each other and for factors that overflow.
    """
    check(units)
    ordered = _ordered(units, weights)
    dtype = units[0].up.dtype
    ups = [_wide(unit.up) * (weight * unit.scale / scale) for unit, weight in ordered]
    downs = [unit.down for unit, _ in ordered]
    up = torch.cat(ups, dim=1).to(dtype)
    if not bool(up.isfinite().all()):
        name = str(dtype).removeprefix("torch.")
        raise MergeError(f"the merged factors are too large for {name}")
    return LoraFactors(torch.cat(downs, dim=0), up, scale)


def truncated(
    units: Sequence[LoraFactors], weights: Sequence[float], rank: int, scale: float = 1.0
) -> LoraFactors:
    """Return the factors of ``rank`` whose update is nearest to Σ wi si Bi Ai.

    By the singular value decomposition (Eckart and Young, 1936) in float64, from the factors'
    QR decompositions: no matrix of the weight's size is made. Both factors get the square roots
    of the singular values, and rows of zeros where there are fewer. CPUs agree to about 1e-12
    relative before rounding.
    """
    merged = concatenated([_doubled(unit) for unit in units], weights)
    left, upper = torch.linalg.qr(merged.up.flatten(1))
    right, lower = torch.linalg.qr(merged.down.flatten(1).T)
    u, values, v = torch.linalg.svd(upper @ lower.T)
    # Of shares of the largest one: squares of values as small as 1e-200 are 0.
    shares = values / values[0] if bool(values.any()) else values
    lost = float(shares[rank:].norm() / shares.norm()) if bool(shares.any()) else 0.0
    kept = min(rank, len(values))
    roots = (values[:kept] / abs(scale)).sqrt()
    # A pair of singular vectors may change sign together: the largest element of A's is positive.
    rows = _padded((right @ v[:kept].T * roots).T, rank)
    columns = _padded((left @ u[:, :kept] * roots).T, rank).T
    signs = _signs(rows)
    columns = columns * math.copysign(1, scale)
    first = units[0]
    down = (rows * signs).reshape(rank, *first.down.shape[1:]).to(first.down.dtype)
    up = (columns * signs.T).reshape(len(first.up), rank, *first.up.shape[2:])
    return LoraFactors(down, up.to(first.up.dtype), scale, lost)


@dataclass(frozen=True)
class CoreSpace:
    """The space that LoRA updates have in common: ``left`` M ``right`` for a small matrix M.

    ``left`` ``[out, R]`` has orthonormal columns, ``right`` ``[S, in]`` orthonormal rows.
    """

    left: Tensor
    right: Tensor

    @classmethod
    def of(cls, units: Sequence[LoraFactors]) -> CoreSpace:
        """Return the left singular basis of all B side by side, and the right one of all A.

        In float64, with the largest element of each vector positive (Core Space,
        arXiv:2509.17786).
        """
        ups = torch.cat([unit.up.double().flatten(1) for unit in units], 1)
        downs = torch.cat([unit.down.double().flatten(1) for unit in units], 0)
        left = _turned(torch.linalg.svd(ups, full_matrices=False)[0].T).T
        return cls(left, _turned(torch.linalg.svd(downs, full_matrices=False)[2]))

    def matrix(self, unit: LoraFactors) -> Tensor:
        """Return M of an update, Uᵀ s B A Vᵀ, in float64."""
        columns = self.left.T @ (unit.up.double().flatten(1) * unit.scale)
        return columns @ (unit.down.double().flatten(1) @ self.right.T)

    def factors(self, matrix: Tensor, like: LoraFactors, rank: int, scale: float) -> LoraFactors:
        """Return the factors of ``rank`` nearest to an update, of the shapes and dtypes of some."""
        up = (self.left @ matrix).reshape(len(like.up), -1, *like.up.shape[2:])
        down = self.right.reshape(-1, *like.down.shape[1:])
        found = truncated([LoraFactors(down, up)], [1.0], rank, scale)
        down, up = found.down.to(like.down.dtype), found.up.to(like.up.dtype)
        if not bool(up.isfinite().all() and down.isfinite().all()):
            name = str(up.dtype).removeprefix("torch.")
            raise MergeError(f"the merged factors are too large for {name}")
        return replace(found, down=down, up=up)


def _turned(rows: Tensor) -> Tensor:
    """Return the rows with the largest element of each positive."""
    return rows * _signs(rows)


def _signs(rows: Tensor) -> Tensor:
    """Return the sign ``[rows, 1]`` of the element of each row that is largest in magnitude."""
    places = rows.abs().argmax(dim=1, keepdim=True)
    return torch.where(rows.gather(1, places) < 0, -1.0, 1.0)


def in_order(units: Sequence[LoraFactors]) -> list[LoraFactors]:
    """Return updates in an order that depends on their content alone."""
    return [unit for unit, _ in _ordered(units, [1.0] * len(units))]


def inner_products(units: Sequence[LoraFactors]) -> Tensor:
    """Return the dot products of the updates si Bi Ai with each other: float64 ``[N, N]``.

    From the factors alone: <B A, D C> = Σ (Bᵀ D) ∘ (A Cᵀ).
    """
    downs = [unit.down.double().flatten(1) for unit in units]
    ups = [unit.up.double().flatten(1) * unit.scale for unit in units]
    pairs = [
        ((ups[i].T @ ups[j]) * (downs[i] @ downs[j].T)).sum()
        for i in range(len(units))
        for j in range(len(units))
    ]
    return torch.tensor(pairs, dtype=torch.float64).view(len(units), len(units))


def check(units: Sequence[LoraFactors]) -> None:
    """Raise ``MergeError`` for updates that do not fit each other, and for NaN and infinity."""
    kinds = {
        (u.up.shape[:1], u.up.shape[2:], u.down.shape[1:], u.up.dtype, u.down.dtype) for u in units
    }
    if len(kinds) > 1:
        raise MergeError("the adapters change weights of different shapes or dtypes")
    for unit in units:
        if unit.up.shape[1:2] != unit.down.shape[:1]:
            shapes = f"{list(unit.up.shape)} and {list(unit.down.shape)}"
            raise MergeError(f"{shapes} are not a pair of LoRA factors: their ranks differ")
        if not bool(unit.up.isfinite().all() and unit.down.isfinite().all()):
            raise MergeError("a LoRA factor has NaN or infinity")


def _ordered(
    units: Sequence[LoraFactors], weights: Sequence[float]
) -> list[tuple[LoraFactors, float]]:
    def key(pair: tuple[LoraFactors, float]) -> tuple[str, str, float, float]:
        unit, weight = pair
        return content_of(unit.down), content_of(unit.up), unit.scale, weight

    return sorted(zip(units, weights, strict=True), key=key)


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _doubled(unit: LoraFactors) -> LoraFactors:
    return LoraFactors(unit.down.double(), unit.up.double(), unit.scale)


def _padded(rows: Tensor, rank: int) -> Tensor:
    """Append rows of zeros to ``[r, n]``, up to ``[rank, n]``."""
    return torch.cat([rows, rows.new_zeros(rank - len(rows), rows.shape[1])])
