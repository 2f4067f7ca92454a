"""DARE: drop elements of the task vectors at random and rescale the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from git_theta.merge.kernels.randomness import uniform
from git_theta.merge.kernels.reductions import agreeing_mean, below, quotient, weighted_sum
from git_theta.merge.rules.hyperparameters import (
    Density,
    Scale,
    Seed,
    Shares,
    Weights,
    positive_sum,
)
from git_theta.merge.rules.strategy import Context, strategy

if TYPE_CHECKING:
    from torch import Tensor

Rescale = Annotated[bool, "divide what is kept by the density"]


@strategy(paper="arXiv:2311.03099", slicing="element")
def dare_linear(
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    *,
    density: Density = 0.5,
    weight: Weights = (1.0,),
    lambda_: Scale = 1.0,
    rescale: Rescale = True,
    seed: Seed = 0,
) -> Tensor:
    """Thin the task vectors at random, and add their weighted sum to the base.

    Each element of each τi is dropped with probability 1 - density, the others are divided by the
    density, which keeps their expectation; then θ0 + λ Σ wi τi.
    """
    thinned = _thin(deltas, context, density, rescale, seed)
    return base + lambda_ * weighted_sum(thinned, weight)


@strategy(paper="arXiv:2311.03099", slicing="element", check=positive_sum)
def dare_ties(
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    *,
    density: Density = 0.5,
    weight: Shares = (1.0,),
    lambda_: Scale = 1.0,
    rescale: Rescale = True,
    seed: Seed = 0,
) -> Tensor:
    """Thin the task vectors at random, and average those that agree on an element's sign.

    The τi are thinned as in ``dare_linear`` and merged as in ``ties``, without its trimming.
    """
    thinned = _thin(deltas, context, density, rescale, seed)
    return base + lambda_ * agreeing_mean(thinned, weight)


def _thin(
    deltas: Sequence[Tensor], context: Context, density: float, rescale: bool, seed: int
) -> list[Tensor]:
    thinned = []
    for delta, content in zip(deltas, context.contents, strict=True):
        random = uniform(seed, context.name, content, context.start, delta.numel(), delta.device)
        survivors = delta * below(random, density).to(delta.dtype)
        thinned.append(quotient(survivors, density) if rescale and density else survivors)
    return thinned
