"""Means on a sphere, as coefficients of the vectors that are averaged.

A mean on a sphere lies in the span of its vectors. So what is computed, iterations included, are N
coefficients from the vectors' dot products, ``gram``: float64 ``[N, N, R]`` for R means at once;
the long vectors are read once for the products and once for the result. Functions return float64
``[N, R]``. Each of the R means is independent of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.reductions import tree_sum
from git_theta.merge.kernels.trigonometry import acos, cos, sin

if TYPE_CHECKING:
    from torch import Tensor

# Beyond this the arc is as good as straight, or, near -1, has no direction.
_STRAIGHT = 0.9995
# A mean of unit vectors that is shorter is the rounding of a zero.
_NOWHERE = 1e-7


def arc(gram: Tensor, t: float, straight: float = _STRAIGHT) -> Tensor:
    """Return the coefficients of the point at ``t`` on the arc from the first vector to the second.

    sin((1-t) Ω) / sin Ω and sin(t Ω) / sin Ω with Ω the angle between them; 1-t and t where
    |cos Ω| > 0.9995 or one is zero.
    """
    line = torch.tensor([[1 - t], [t]], dtype=torch.float64)
    _, angles, alive = _units(gram)
    cosine = angles[0, 1]
    curved = (cosine.abs() <= straight) & alive.all(0)
    angle = acos(torch.where(curved, cosine, 0))
    return torch.where(curved, sin(line * angle) / sin(angle), line)


def projected_mean(gram: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the coefficients of the weighted mean of unit vectors, projected onto the sphere.

    The sphere's radius is the weighted mean of the vectors' norms. Zero vectors have no direction
    and count in the radius alone. Where the directions cancel: the weighted mean of the vectors.
    """
    return karcher_mean(gram, weights, 0, 0.0)


def karcher_mean(gram: Tensor, weights: Sequence[float], max_iter: int, tol: float) -> Tensor:
    """Return the coefficients of the point with the least weighted sum of squared angles.

    Start from ``projected_mean`` and step along the mean of the tangents that point to the vectors,
    until a step is shorter than ``tol`` radians, or ``max_iter`` times.
    """
    norms, cosines, alive = _units(gram)
    weight = torch.tensor(weights, dtype=torch.float64)[:, None]
    weight = weight / tree_sum(weight.T)
    shares = _over(weight * alive, _total(weight * alive))
    length = _length(shares, cosines)
    mean = _over(shares, length)
    for _ in range(max_iter):
        step = _step(mean, shares, cosines)
        size = _length(step, cosines)
        moving = (size >= tol) & (size > 0)
        if not bool(moving.any()):
            break
        moved = cos(size) * mean + _over(sin(size) * step, size)
        mean = torch.where(moving, _over(moved, _length(moved, cosines)), mean)
    radius = _total(weight * norms)
    return torch.where(length > _NOWHERE, _over(mean * radius, norms), weight)


def cosines(gram: Tensor) -> Tensor:
    """Return the cosines between the vectors: float64 ``[N, N, R]``, 0 with a zero vector."""
    norms = torch.diagonal(gram).T.sqrt()
    return _over(gram, norms[:, None] * norms[None])


def _step(mean: Tensor, shares: Tensor, cosines: Tensor) -> Tensor:
    """Return Σ shares · (the tangent at ``mean`` towards a vector, as long as the angle to it)."""
    towards = _products(mean, cosines).clamp(-1, 1)
    angle = acos(towards)
    sine = sin(angle)
    # At a vector itself the tangent is zero; at its opposite no direction is the right one.
    pull = shares * torch.where(sine > _NOWHERE, angle / sine, 0)
    return pull - _total(pull * towards) * mean


def _units(gram: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return norms ``[N, R]``, cosines ``[N, N, R]``, and which vectors are not zero ``[N, R]``."""
    norms = torch.diagonal(gram).T.sqrt()
    return norms, cosines(gram), norms > 0


def _products(mean: Tensor, cosines: Tensor) -> Tensor:
    """Return the dot product of each mean with each unit vector: ``[N, R]``."""
    return tree_sum((cosines * mean[None]).movedim(1, -1))


def _length(mean: Tensor, cosines: Tensor) -> Tensor:
    return _total(mean * _products(mean, cosines)).clamp(min=0).sqrt()


def _total(values: Tensor) -> Tensor:
    """Sum over the N contributors, in their order."""
    return tree_sum(values.T)


def _over(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide; 0 where the denominator is 0."""
    return torch.where(denominator > 0, numerator / denominator, 0)
