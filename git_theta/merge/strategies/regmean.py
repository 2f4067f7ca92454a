"""RegMean: linear layers merged by least squares on their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from git_theta.errors import MergeError
from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.reductions import quotient, weighted_sum
from git_theta.merge.rules.hyperparameters import Range
from git_theta.merge.rules.strategy import strategy

if TYPE_CHECKING:
    from torch import Tensor


@strategy(paper="arXiv:2212.09849", slicing="tensor", reproducible=False)
def regmean(
    models: Sequence[Tensor],
    gram: Sequence[Tensor] | None = None,
    *,
    alpha: Annotated[float, Range(0, 1), "factor of the Gram matrices' off-diagonals"] = 0.9,
    ridge: Annotated[
        float, Range(0, above=True), "share of the mean diagonal that is added to each diagonal"
    ] = 1e-6,
) -> Tensor:
    """Fit the linear layer whose outputs are nearest to each contributor's on its own inputs.

    W^T = (Σ Gi)^-1 Σ Gi Wi^T with W ``[out, in]`` and Gi = Xi^T Xi ``[in, in]``, off-diagonals
    scaled by ``alpha``. The ridge is added to each Gi, on both sides, so that an input that no
    data excites gets the mean of its weights. Parameters without Gram matrices are averaged.
    Solved in float64; CPUs agree to about 1e-12 relative before rounding to the stored dtype.
    """
    if gram is None:
        return quotient(weighted_sum(models, [1.0] * len(models)), len(models))
    if any(model.shape[1:] != matrix.shape[:1] for model, matrix in zip(models, gram, strict=True)):
        raise MergeError("a Gram matrix does not fit: weights are [out, in], the matrix [in, in]")
    matrices = _regular([matrix.double() for matrix in gram], alpha, ridge)
    # W1 + (Σ Gi)^-1 Σ Gi (Wi - W1)^T takes a product of matrices less.
    first = models[0].double()
    changes = [model.double() - first for model in models[1:]]
    if not changes:
        return models[0]
    moves = [g @ change.T for g, change in zip(matrices[1:], changes, strict=True)]
    total = weighted_sum(matrices, [1.0] * len(matrices))
    merged: Tensor = first + _solved(total, weighted_sum(moves, [1.0] * len(moves))).T
    return merged.to(models[0].dtype)


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """Return the solution of a symmetric system, which Gram matrices make positive definite.

    Where rounding made it indefinite, it is solved as any other. Raise ``MergeError`` where it is
    singular.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if not int(failed):
        return torch.cholesky_solve(right, factor)
    solution: Tensor
    solution, failed = torch.linalg.solve_ex(matrix, right)
    if int(failed):
        raise MergeError("the sum of the Gram matrices is singular", hint="raise ridge")
    return solution


def _regular(gram: Sequence[Tensor], alpha: float, ridge: float) -> list[Tensor]:
    # One level for all, so that what no data excites becomes the plain mean.
    level = sum(matrix.diagonal().mean().item() for matrix in gram) / len(gram) or 1.0
    return [
        matrix * alpha + torch.diag(matrix.diagonal() * (1 - alpha) + level * ridge)
        for matrix in gram
    ]
