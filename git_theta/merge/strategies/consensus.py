"""Strategies that look at how many contributors changed an element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from git_theta.merge.kernels.reductions import above, below, weighted_sum
from git_theta.merge.rules.hyperparameters import Range, Scale
from git_theta.merge.rules.strategy import strategy

if TYPE_CHECKING:
    from torch import Tensor


@strategy(paper="arXiv:2405.07813", slicing="element")
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


@strategy(paper="arXiv:2601.13572", slicing="element")
def ram(
    base: Tensor,
    deltas: Sequence[Tensor],
    *,
    lambda_: Scale = 1.0,
    threshold: Annotated[float, Range(0), "changes up to this size count as none"] = 1e-5,
) -> Tensor:
    """Add the mean of the changes of those contributors that changed an element.

    θ0 + λ Σ τi / k over the k contributors with |τi| > threshold: what one alone changed is kept as
    it is, where a mean over all would halve it.
    """
    active = [above(delta.abs(), threshold) for delta in deltas]
    count = weighted_sum(active, [1.0] * len(active))
    # 1 where nobody is active.
    count += below(count, 0.5)
    kept = [delta * mask for delta, mask in zip(deltas, active, strict=True)]
    return base + lambda_ * (weighted_sum(kept, [1.0] * len(kept)) / count)
