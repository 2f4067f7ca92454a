"""Task vectors added to the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from git_theta.merge.kernels.reductions import largest, weighted_sum
from git_theta.merge.rules.hyperparameters import Scale, Weights
from git_theta.merge.rules.strategy import strategy
from git_theta.merge.strategies.evidence import GAINED, OF_DISTINCT_TASKS

if TYPE_CHECKING:
    from torch import Tensor


@strategy(paper="arXiv:2212.04089", slicing="element", scaled_by="lambda", helps=GAINED)
def task_arithmetic(
    base: Tensor,
    deltas: Sequence[Tensor],
    *,
    weight: Weights = (1.0,),
    lambda_: Scale = 1.0,
) -> Tensor:
    """Add the weighted sum of the task vectors to the base.

    θ0 + λ Σ wi τi with τi = θi - θ0. A negative weight makes the result forget what that
    contributor learnt.
    """
    return base + lambda_ * weighted_sum(deltas, weight)


@strategy(paper="arXiv:2407.06322", slicing="element", scaled_by="lambda", helps=OF_DISTINCT_TASKS)
def magmax(base: Tensor, deltas: Sequence[Tensor], *, lambda_: Scale = 1.0) -> Tensor:
    """Add, element by element, the task vector of largest magnitude to the base.

    θ0 + λ τ with τ the τi for which |τi| is largest; of two opposite ones the positive.
    """
    return base + lambda_ * largest(deltas)
