"""DARE: drop elements of the task vectors at random and rescale the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from git_theta.merge.kernels.prepass import Model
from git_theta.merge.kernels.randomness import uniform
from git_theta.merge.kernels.reductions import agreeing_mean, below, quotient, weighted_sum
from git_theta.merge.rules.hyperparameters import (
    Density,
    Normalize,
    Scale,
    Seed,
    Shares,
    Weights,
    positive_sum,
)
from git_theta.merge.rules.strategy import Context, Prepass, strategy
from git_theta.merge.strategies.evidence import OF_DISTINCT_TASKS
from git_theta.merge.strategies.rescaling import l1_factors, scaled

if TYPE_CHECKING:
    from torch import Tensor

Rescale = Annotated[
    Literal["density", "l1", "none"],
    "divide what is kept by the density, or scale it to the L1 norm that the tensor had",
]
Factors = Sequence[float]


def _factors(model: Model, values: Mapping[str, Any]) -> dict[str, list[float]]:
    def thin(deltas: Sequence[Tensor], context: Context) -> list[Tensor]:
        return _survivors(deltas, context, values["density"], values["seed"])

    return l1_factors(model, thin)


_PREPASS = Prepass(_factors, lambda values: "tensor" if values["rescale"] == "l1" else "none")


@strategy(
    paper="arXiv:2311.03099",
    slicing="element",
    helps=OF_DISTINCT_TASKS,
    scaled_by="lambda",
    prepass=_PREPASS,
)
def dare_linear(
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    prepass: Factors | None = None,
    *,
    density: Density = (0.5,),
    weight: Weights = (1.0,),
    lambda_: Scale = 1.0,
    rescale: Rescale = "density",
    seed: Seed = 0,
) -> Tensor:
    """Thin the task vectors at random, and add their weighted sum to the base.

    Each element of each τi is dropped with probability 1 - density, the others are divided by the
    density, which keeps their expectation; then θ0 + λ Σ wi τi. With ``rescale=l1``, as mergekit
    does since 2025, each tensor of each τi keeps its Σ |τi| instead.
    """
    thinned = _thin(deltas, context, prepass, density, rescale, seed)
    return base + lambda_ * weighted_sum(thinned, weight)


@strategy(
    paper="arXiv:2311.03099",
    slicing="element",
    helps=OF_DISTINCT_TASKS,
    scaled_by="lambda",
    check=positive_sum,
    prepass=_PREPASS,
)
def dare_ties(
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    prepass: Factors | None = None,
    *,
    density: Density = (0.5,),
    weight: Shares = (1.0,),
    lambda_: Scale = 1.0,
    normalize: Normalize = True,
    rescale: Rescale = "density",
    seed: Seed = 0,
) -> Tensor:
    """Thin the task vectors at random, and average those that agree on an element's sign.

    The τi are thinned as in ``dare_linear`` and merged as in ``ties``, without its trimming.
    """
    thinned = _thin(deltas, context, prepass, density, rescale, seed)
    return base + lambda_ * agreeing_mean(thinned, weight, normalize)


def _thin(
    deltas: Sequence[Tensor],
    context: Context,
    factors: Factors | None,
    density: Sequence[float],
    rescale: str,
    seed: int,
) -> list[Tensor]:
    survivors = _survivors(deltas, context, density, seed)
    if factors is not None:
        return scaled(survivors, factors)
    if rescale == "none":
        return survivors
    # Where nothing is ever kept there is nothing to divide.
    return [quotient(each, share or 1) for each, share in zip(survivors, density, strict=True)]


def _survivors(
    deltas: Sequence[Tensor], context: Context, density: Sequence[float], seed: int
) -> list[Tensor]:
    survivors = []
    for delta, content, share in zip(deltas, context.contents, density, strict=True):
        random = uniform(seed, context.name, content, context.start, delta.numel(), delta.device)
        survivors.append(delta * below(random, share).to(delta.dtype))
    return survivors
