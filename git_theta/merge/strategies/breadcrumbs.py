"""Model Breadcrumbs: drop the largest and the smallest elements of the task vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from git_theta.merge.kernels.prepass import Model, task_vectors
from git_theta.merge.kernels.reductions import agreeing_mean, floor_of, kept, weighted_sum
from git_theta.merge.kernels.thresholds import MagnitudeThreshold
from git_theta.merge.kernels.topk import select
from git_theta.merge.kernels.trimming import keep_between
from git_theta.merge.rules.hyperparameters import (
    Density,
    Normalize,
    Range,
    Scale,
    Shares,
    Weights,
    positive_sum,
)
from git_theta.merge.rules.strategy import Context, Prepass, strategy
from git_theta.merge.strategies.evidence import OF_DISTINCT_TASKS

if TYPE_CHECKING:
    from torch import Tensor

Gamma = Annotated[Sequence[float], Range(0, 1), "share of the largest elements that is dropped"]
Cuts = Sequence[tuple[MagnitudeThreshold, ...]]


def between(
    model: Model, values: Mapping[str, Any]
) -> dict[str, list[tuple[MagnitudeThreshold, ...]]]:
    """Return, by parameter and contributor, the thresholds of the dropped and the kept elements."""

    def ranks(side: int, count: int) -> Sequence[int]:
        # At least one element is kept, as in all strategies with a density.
        top = min(floor_of(values["gamma"][side], count), count - 1)
        return top, top + kept(values["density"][side], count)

    return select(model, task_vectors, ranks)


_SURVEY = Prepass(between, lambda _: "tensor")


@strategy(
    paper="arXiv:2312.06795",
    slicing="element",
    helps=OF_DISTINCT_TASKS,
    scaled_by="lambda",
    prepass=_SURVEY,
)
def breadcrumbs(
    base: Tensor,
    deltas: Sequence[Tensor],
    prepass: Cuts,
    context: Context,
    *,
    density: Density = (0.9,),
    gamma: Gamma = (0.01,),
    weight: Weights = (1.0,),
    lambda_: Scale = 1.0,
) -> Tensor:
    """Add the task vectors, without their largest and smallest elements, to the base.

    Of each τi, tensor by tensor, the floor(gamma n) largest magnitudes are dropped, then the
    smallest until floor(density n) remain; then θ0 + λ Σ wi τi.
    """
    return base + lambda_ * weighted_sum(_mask(deltas, prepass, context), weight)


@strategy(
    paper="arXiv:2312.06795",
    slicing="element",
    helps=OF_DISTINCT_TASKS,
    scaled_by="lambda",
    prepass=_SURVEY,
    check=positive_sum,
)
def breadcrumbs_ties(
    base: Tensor,
    deltas: Sequence[Tensor],
    prepass: Cuts,
    context: Context,
    *,
    density: Density = (0.9,),
    gamma: Gamma = (0.01,),
    weight: Shares = (1.0,),
    lambda_: Scale = 1.0,
    normalize: Normalize = True,
) -> Tensor:
    """Mask the task vectors as ``breadcrumbs`` does, and merge them as ``ties`` does.

    θ0 + λ Σ wi τi / Σ wi over the contributors whose masked τi has the sign of Σ wi τi; without
    ``normalize`` it is not divided.
    """
    return base + lambda_ * agreeing_mean(_mask(deltas, prepass, context), weight, normalize)


def _mask(deltas: Sequence[Tensor], prepass: Cuts, context: Context) -> list[Tensor]:
    return [
        keep_between(delta, dropped, reached, context.start)
        for delta, (dropped, reached) in zip(deltas, prepass, strict=True)
    ]
