"""Task vectors of matrices merged by their singular vectors, in float64.

Functions of N matrices τi ``[rows, columns]``; none changes with their order but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.reductions import weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


def total(deltas: Sequence[Tensor]) -> Tensor:
    """Return Σ τi."""
    return weighted_sum(deltas, [1.0] * len(deltas))


def singular(deltas: Sequence[Tensor]) -> Tensor:
    """Return the sum of the leading singular triplets of each τi, made orthogonal to each other.

    Of each the max(1, floor(r / N)) leading ones, r being the smaller side. Left and right vectors
    are replaced by the polar factors of all of them together (TSV-Merge, arXiv:2412.00081).
    """
    kept = max(1, min(deltas[0].shape) // len(deltas))
    triplets = [torch.linalg.svd(delta, full_matrices=False) for delta in deltas]
    left = _polar(torch.cat([u[:, :kept] for u, _, _ in triplets], 1))
    right = _polar(torch.cat([v[:kept] for _, _, v in triplets], 0))
    merged: Tensor = left * torch.cat([s[:kept] for _, s, _ in triplets]) @ right
    return merged


def flattened(deltas: Sequence[Tensor]) -> Tensor:
    """Return Σ τi with all singular values replaced by their mean (Iso-C, arXiv:2502.04959)."""
    u, values, v = torch.linalg.svd(total(deltas), full_matrices=False)
    merged: Tensor = values.mean() * (u @ v)
    return merged


def flattened_with_tasks(deltas: Sequence[Tensor], common: float) -> Tensor:
    """Return what Iso-CTS makes of the τi (arXiv:2502.04959).

    A share ``common`` of the directions is that of Σ τi; the others are the leading ones of each
    τi - U Uᵀ τi, as many of each. Both sides are made orthogonal, and all singular values are
    their mean.
    """
    number, size = len(deltas), min(deltas[0].shape)
    of_each = round((size - int(size * common)) / number)
    shared = max(0, size - of_each * number)
    of_each = (size - shared) // number
    u, values, v = torch.linalg.svd(total(deltas), full_matrices=False)
    u, values, v = u[:, :shared], values[:shared], v[:shared]
    own = [torch.linalg.svd(delta - u @ (u.T @ delta), full_matrices=False) for delta in deltas]
    left = _polar(torch.cat([*(each[0][:, :of_each] for each in own), u], 1))
    right = _polar(torch.cat([*(each[2][:of_each] for each in own), v], 0))
    level = torch.cat([*(each[1][:of_each] for each in own), values]).mean()
    return level * (left @ right)


def least_interference(deltas: Sequence[Tensor], ridge: float) -> Tensor:
    """Return the τ that minimises Σ ||(τ - τi) τiᵀ||² / ||τi||² (the loss of arXiv:2503.08099).

    In closed form, τ Σ Gi = Σ τi Gi with Gi = τiᵀ τi / ||τi||²; ``ridge`` times their mean
    diagonal is added to each Gi, on both sides.
    """
    squares = [float((delta * delta).sum()) for delta in deltas]
    active = [(delta, square) for delta, square in zip(deltas, squares, strict=True) if square]
    if not active:
        return torch.zeros_like(deltas[0])
    grams = [delta.T @ delta / square for delta, square in active]
    columns = deltas[0].shape[1]
    # The trace of each Gi is 1.
    level = ridge / columns * torch.eye(columns, dtype=deltas[0].dtype, device=deltas[0].device)
    products = [delta @ (gram + level) for (delta, _), gram in zip(active, grams, strict=True)]
    merged: Tensor = torch.linalg.solve(
        total(grams) + len(active) * level, total(products), left=False
    )
    return merged


def calibrated(merged: Tensor, deltas: Sequence[Tensor], alpha: float) -> Tensor:
    """Return ``merged`` with the singular values lowered that several τi have in common.

    With Δ = U diag(σ) Vᵀ: σr N / Σi max(alpha, sir), and sir = <urᵀ Δ, urᵀ τi> / ||urᵀ τi||²
    (SVC, arXiv:2602.05536); a τi that has nothing in direction ur counts as ``alpha``.
    """
    u, values, v = torch.linalg.svd(merged, full_matrices=False)
    rows = values.unsqueeze(1) * v
    shares = torch.zeros_like(values)
    for delta in deltas:
        own = u.T @ delta
        squares = (own * own).sum(1)
        share = (rows * own).sum(1) / squares.clamp(min=torch.finfo(squares.dtype).tiny)
        shares += share.clamp(min=alpha)
    found: Tensor = u * (values * len(deltas) / shares) @ v
    return found


def _polar(matrix: Tensor) -> Tensor:
    """Return the matrix with orthonormal rows or columns that is nearest to ``matrix``."""
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    nearest: Tensor = u @ v
    return nearest
