"""Strategies that look at how many contributors changed an element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from git_theta.merge.kernels.active_elements import active_counts, active_mean
from git_theta.merge.kernels.prepass import Model, each_slice
from git_theta.merge.kernels.reductions import above, weighted_sum
from git_theta.merge.kernels.slices import Slice
from git_theta.merge.rules.hyperparameters import Range, Scale
from git_theta.merge.rules.strategy import Prepass, strategy
from git_theta.merge.strategies.evidence import OF_DISTINCT_TASKS, OF_SPARSE_CHANGES

if TYPE_CHECKING:
    from torch import Tensor


@strategy(paper="arXiv:2405.07813", slicing="element", scaled_by="lambda", helps=OF_DISTINCT_TASKS)
def consensus(
    base: Tensor,
    deltas: Sequence[Tensor],
    *,
    lambda_: Scale = 1.0,
    threshold: Annotated[float, Range(0), "how much of the others' change is too much"] = 0.4,
    agree: Annotated[int, Range(1), "how many contributors must hold an element important"] = 2,
) -> Tensor:
    """Add the sum of the task vectors where enough contributors hold it important.

    Contributor i holds an element important where |τi| > threshold |Σ τ - τi|; θ0 + λ Σ τi where at
    least ``agree`` do, and θ0 elsewhere (Consensus TA).
    """
    ones = [1.0] * len(deltas)
    total = weighted_sum(deltas, ones)
    votes = [above(delta.abs(), threshold * (total - delta).abs()) for delta in deltas]
    return base + lambda_ * (total * above(weighted_sum(votes, ones), agree - 0.5))


Threshold = Annotated[float, Range(0), "changes up to this size count as none"]


@strategy(paper="arXiv:2601.13572", slicing="element", scaled_by="lambda", helps=OF_SPARSE_CHANGES)
def ram(
    base: Tensor, deltas: Sequence[Tensor], *, lambda_: Scale = 1.0, threshold: Threshold = 1e-5
) -> Tensor:
    """Add the mean of the changes of those contributors that changed an element.

    θ0 + λ Σ τi / k over the k contributors with |τi| > threshold: what one alone changed is kept as
    it is, where a mean over all would halve it.
    """
    return base + lambda_ * active_mean(deltas, threshold, [1.0] * len(deltas))


def gains(model: Model, values: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return, by parameter and contributor, the factor of what that one alone changed."""

    def work(piece: Slice) -> list[tuple[int, int]]:
        return active_counts(piece.deltas, values["threshold"])

    totals: list[tuple[int, int]] = []
    for found in each_slice(model, work):
        totals = totals or [(0, 0)] * len(found)
        totals = [(a + c, b + d) for (a, b), (c, d) in zip(totals, found, strict=True)]
    factors = [
        # Without an element of its own there is nothing to raise.
        1 + values["r"] * min((every - unique) / unique, values["alpha"]) if unique else 1.0
        for every, unique in totals
    ]
    return dict.fromkeys(model.names, factors)


@strategy(
    paper="arXiv:2601.13572",
    slicing="element",
    scaled_by="lambda",
    prepass=Prepass(gains, lambda _: "model"),
    helps=OF_SPARSE_CHANGES,
)
def ram_plus(
    base: Tensor,
    deltas: Sequence[Tensor],
    prepass: Sequence[float],
    *,
    lambda_: Scale = 1.0,
    threshold: Threshold = 1e-5,
    r: Annotated[float, Range(0), "how much what one alone changed is raised"] = 0.1,
    alpha: Annotated[float, Range(0), "the largest ratio that counts"] = 0.2,
) -> Tensor:
    """Add the mean of the changes, and raise what one contributor alone changed.

    As ``ram``, where an element that contributor i alone changed is multiplied by
    1 + r min(shared / unique, alpha): shared and unique are the numbers of elements of the whole
    model that it changed with others and alone. It makes good for what is averaged away.
    """
    return base + lambda_ * active_mean(deltas, threshold, prepass)
