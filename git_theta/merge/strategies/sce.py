"""SCE: select what varies, weigh by energy, erase minority signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, Literal

from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.prepass import Model, each_slice, squared_norms
from git_theta.merge.kernels.reductions import (
    agreeing_mean,
    floor_of,
    kept,
    quotient,
    weighted_sum,
)
from git_theta.merge.kernels.slices import Slice
from git_theta.merge.kernels.thresholds import ALL, MagnitudeThreshold
from git_theta.merge.kernels.topk import select
from git_theta.merge.rules.hyperparameters import Range
from git_theta.merge.rules.strategy import Context, Prepass, strategy
from git_theta.merge.strategies.evidence import OF_DISTINCT_TEACHERS

if TYPE_CHECKING:
    from torch import Tensor


def variance(models: Sequence[Tensor]) -> Tensor:
    """Return the population variance over the contributors, by element, in float64.

    Σ (θi - θj)² / N² over the pairs, added from the smallest: equal for equal differences. With
    a mean in float32, 448 of 4,096 equal elements differed by its rounding.
    """
    wide = [model.double() for model in models]
    squares = [(one - other) * (one - other) for one, other in combinations(wide, 2)]
    if len(squares) > 1:
        squares = list(torch.stack(squares).sort(0).values)
    if not squares:
        return torch.zeros_like(wide[0])
    return quotient(weighted_sum(squares, [1.0] * len(squares)), len(models) ** 2)


def energies(
    model: Model, values: Mapping[str, Any]
) -> dict[str, list[tuple[float, MagnitudeThreshold]]]:
    """Return each contributor's share of the selected energy, and the threshold that selects."""
    (name,) = model.names
    threshold = _threshold(model, values)
    norms = squared_norms(
        model, lambda piece: _selected(piece.models, piece.deltas, threshold, piece.start)
    )
    total = sum(norms)
    shares = [norm / total if total else 1 / len(norms) for norm in norms]
    return {name: [(share, threshold) for share in shares]}


def _threshold(model: Model, values: Mapping[str, Any]) -> MagnitudeThreshold:
    """Return the threshold for the variances of a model of one tensor."""
    (name,) = model.names
    chosen = _chosen(model, values, model.count)
    if chosen == model.count:
        return ALL  # without a look at any variance
    found = select(model, lambda piece: [variance(piece.models)], lambda *_: [chosen], wide=True)
    return found[name][0][0]


def _chosen(model: Model, values: Mapping[str, Any], count: int) -> int:
    """Return how many of ``count`` elements are selected."""
    if values["among"] == "all":
        return kept(values["select_topk"], count)

    def varying(piece: Slice) -> int:
        return int(torch.count_nonzero(variance(piece.models)))

    return floor_of(values["select_topk"], sum(each_slice(model, varying)))


def _selected(
    models: Sequence[Tensor], deltas: Sequence[Tensor], threshold: MagnitudeThreshold, start: int
) -> list[Tensor]:
    if threshold == ALL:
        return list(deltas)
    mask = threshold.keeps(variance(models), start).to(deltas[0].dtype)
    return [delta * mask for delta in deltas]


@strategy(
    paper="arXiv:2408.07990",
    slicing="element",
    helps=OF_DISTINCT_TEACHERS,
    version=2,
    prepass=Prepass(energies, lambda _: "tensor"),
)
def sce(
    models: Sequence[Tensor],
    base: Tensor,
    deltas: Sequence[Tensor],
    prepass: Sequence[tuple[float, MagnitudeThreshold]],
    context: Context,
    *,
    select_topk: Annotated[
        float, Range(0, 1), "share of the elements, those of largest variance, that is merged"
    ] = 1.0,
    among: Annotated[
        Literal["all", "varying"], "what that is a share of: all elements or those that vary"
    ] = "all",
) -> Tensor:
    """Add the energy-weighted mean of what varies most and agrees in sign to the base.

    In each tensor: select the max(1, floor(select_topk n)) elements of largest variance over the τi
    (with ``among=varying``, as mergekit, floor(select_topk m) of the m whose variance is not 0);
    weigh each contributor by its share of the selected Σ τi²; erase τi whose sign is not that of Σ
    τi; θ0 + Σ wi τi / Σ wi over what is left.
    """
    selected = _selected(models, deltas, prepass[0][1], context.start)
    shares = [share for share, _ in prepass]
    return base + agreeing_mean(selected, shares, electing=[1.0] * len(selected))
