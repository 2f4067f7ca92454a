"""TIES: trim the task vectors, elect a sign per element, and average those that agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from git_theta.merge.kernels.prepass import Model, task_vectors
from git_theta.merge.kernels.reductions import kept
from git_theta.merge.kernels.thresholds import MagnitudeThreshold
from git_theta.merge.kernels.topk import select
from git_theta.merge.kernels.trimming import trimmed_mean
from git_theta.merge.rules.hyperparameters import Density, Normalize, Scale, Shares, positive_sum
from git_theta.merge.rules.strategy import Context, Prepass, strategy
from git_theta.merge.strategies.evidence import DID_NOT_GAIN

if TYPE_CHECKING:
    from torch import Tensor


def largest(model: Model, values: Mapping[str, Any]) -> dict[str, list[MagnitudeThreshold]]:
    """Return, by parameter and contributor, the threshold that keeps ``density`` of elements."""
    shares = values["density"]
    thresholds = select(model, task_vectors, lambda side, count: [kept(shares[side], count)])
    return {name: [threshold for (threshold,) in row] for name, row in thresholds.items()}


@strategy(
    paper="arXiv:2306.01708",
    slicing="element",
    scaled_by="lambda",
    version=2,
    helps=DID_NOT_GAIN,
    check=positive_sum,
    prepass=Prepass(largest, lambda values: values["scope"]),
)
def ties(
    base: Tensor,
    deltas: Sequence[Tensor],
    prepass: Sequence[MagnitudeThreshold],
    context: Context,
    *,
    density: Density = (0.2,),
    weight: Shares = (1.0,),
    lambda_: Scale = 1.0,
    normalize: Normalize = True,
    scope: Annotated[
        Literal["model", "tensor"], "what the density is a share of: each model or each tensor"
    ] = "model",
) -> Tensor:
    """Trim the task vectors, and average those that agree on an element's sign.

    Each τi keeps exactly its max(1, floor(density n)) largest magnitudes (of equals the first, by
    parameter name and flat index) over the ``scope``: the whole model as in the paper, or each
    tensor. The sign of Σ wi τi is elected per element (zero: +), and the result is
    θ0 + λ Σ wi τi / Σ wi over the contributors whose τi has that sign; without ``normalize`` it is
    not divided.
    """
    return base + lambda_ * trimmed_mean(deltas, prepass, context.start, weight, normalize)
