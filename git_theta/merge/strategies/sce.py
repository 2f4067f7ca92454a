"""SCE: select what varies, weigh by energy, erase minority signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from git_theta.merge.kernels.prepass import Model, squared_norms
from git_theta.merge.kernels.reductions import (
    elect,
    kept,
    quotient,
    weighted_agreeing_mean,
    weighted_sum,
)
from git_theta.merge.kernels.topk import MagnitudeThreshold, select
from git_theta.merge.rules.hyperparameters import Range
from git_theta.merge.rules.strategy import Context, Prepass, strategy

if TYPE_CHECKING:
    from torch import Tensor


def variance(deltas: Sequence[Tensor]) -> Tensor:
    """Return the population variance over the contributors, by element."""
    ones = [1.0] * len(deltas)
    mean = quotient(weighted_sum(deltas, ones), len(deltas))
    squares = [(delta - mean) * (delta - mean) for delta in deltas]
    return quotient(weighted_sum(squares, ones), len(deltas))


def energies(
    model: Model, values: Mapping[str, Any]
) -> dict[str, list[tuple[float, MagnitudeThreshold]]]:
    """Return each contributor's share of the selected energy, and the threshold that selects."""
    (name,) = model.names
    thresholds = select(
        model, lambda piece: [variance(piece.deltas)], lambda n: [kept(values["select_topk"], n)]
    )
    threshold = thresholds[name][0][0]
    norms = squared_norms(model, lambda piece: _selected(piece.deltas, threshold, piece.start))
    total = sum(norms)
    shares = [norm / total if total else 1 / len(norms) for norm in norms]
    return {name: [(share, threshold) for share in shares]}


def _selected(deltas: Sequence[Tensor], threshold: MagnitudeThreshold, start: int) -> list[Tensor]:
    mask = threshold.keeps(variance(deltas), start).to(deltas[0].dtype)
    return [delta * mask for delta in deltas]


@strategy(
    paper="arXiv:2408.07990", slicing="element", prepass=Prepass(energies, lambda _: "tensor")
)
def sce(
    base: Tensor,
    deltas: Sequence[Tensor],
    prepass: Sequence[tuple[float, MagnitudeThreshold]],
    context: Context,
    *,
    select_topk: Annotated[
        float, Range(0, 1), "share of the elements, those of largest variance, that is merged"
    ] = 1.0,
) -> Tensor:
    """Add the energy-weighted mean of what varies most and agrees in sign to the base.

    In each tensor: select the max(1, floor(select_topk n)) elements of largest variance over the
    τi; weigh each contributor by its share of the selected Σ τi²; erase τi whose sign is not that
    of Σ τi; θ0 + Σ wi τi / Σ wi over what is left.
    """
    selected = _selected(deltas, prepass[0][1], context.start)
    sign = elect(weighted_sum(selected, [1.0] * len(selected)))
    return base + weighted_agreeing_mean(selected, [share for share, _ in prepass], sign)
