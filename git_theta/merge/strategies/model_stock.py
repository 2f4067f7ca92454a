"""Model Stock: the mean of the contributors, the nearer to the base the less they agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, Literal

from git_theta.errors import MergeError
from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.prepass import Model, gram, row_gram
from git_theta.merge.kernels.reductions import tree_sum, weighted_sum
from git_theta.merge.kernels.sphere import cosines
from git_theta.merge.rules.strategy import Prepass, Scope, strategy
from git_theta.merge.strategies.evidence import DID_NOT_GAIN

if TYPE_CHECKING:
    from torch import Tensor

# Nearer to 0 the denominator of t is the rounding of a cosine.
_SMALLEST = 1e-6


def interpolation(products: Tensor) -> Tensor:
    """Return the ratio t from the dot products ``[N, N, R]`` of task vectors: float64 ``[R]``.

    t = N c / (1 + (N-1) c), where c is the mean of the pairwise cosines (0 with a zero vector); 0
    where the denominator is near 0.
    """
    number = len(products)
    found = cosines(products)
    pairs = torch.stack([found[i, j] for i, j in combinations(range(number), 2)], -1)
    # Sorted, so that the order of the contributors changes no bit of the sum.
    cosine = tree_sum(pairs.sort(-1).values) / pairs.shape[-1]
    denominator = 1 + (number - 1) * cosine
    usable = denominator.abs() > _SMALLEST
    return torch.where(usable, number * cosine / denominator, 0)


def ratios(model: Model, values: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return, by parameter, the ratio t, repeated for each contributor."""
    products = gram(model, lambda piece: piece.deltas)
    return dict.fromkeys(model.names, interpolation(products).tolist() * len(products))


def _scope(values: Mapping[str, Any]) -> Scope:
    scope: Scope = values["scope"]
    return "none" if values["filter_wise"] else scope


def _either(values: Mapping[str, Any]) -> None:
    if values["filter_wise"] and values["scope"] == "model":
        raise MergeError("filter_wise=true and scope=model cannot be combined")


@strategy(
    paper="arXiv:2403.19522",
    slicing="row",
    version=2,
    contributors=(2, None),
    helps=DID_NOT_GAIN,
    check=_either,
    prepass=Prepass(ratios, _scope),
)
def model_stock(
    base: Tensor,
    deltas: Sequence[Tensor],
    prepass: Sequence[float] | None = None,
    *,
    filter_wise: Annotated[bool, "one ratio for each output unit"] = False,
    scope: Annotated[
        Literal["tensor", "model"], "one ratio for each tensor or for the model"
    ] = "tensor",
) -> Tensor:
    """Interpolate between base and mean of the contributors, by the angle of the task vectors.

    t mean(θ) + (1-t) θ0 with t = N c / (1 + (N-1) c) and c the mean pairwise cosine of the τi;
    the base where 1 + (N-1) c is near 0.
    """
    total = weighted_sum(deltas, [1.0] * len(deltas))
    if prepass is not None:
        return base + total * (prepass[0] / len(deltas))
    ratio = interpolation(row_gram(deltas)) / len(deltas)
    return base + total * ratio.to(total).unsqueeze(-1)
