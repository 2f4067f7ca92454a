"""DELLA: drop elements at random, the more probably the smaller they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal

from git_theta.errors import MergeError
from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.prepass import Model
from git_theta.merge.kernels.reductions import agreeing_mean, quotient, weighted_sum
from git_theta.merge.kernels.trimming import thin_ranked
from git_theta.merge.rules.hyperparameters import (
    Density,
    Normalize,
    Range,
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

Epsilon = Annotated[
    Sequence[float], Range(0, 0.5), "how far the keep probability strays from the density"
]
Rescale = Annotated[
    Literal["probability", "l1", "none"],
    "divide what is kept by its probability, or scale it to the L1 norm that the tensor had",
]
Factors = Sequence[float]


def _probabilities(values: Mapping[str, Any]) -> None:
    for density, epsilon in zip(values["density"], values["epsilon"], strict=True):
        middle, half = Fraction(repr(density)), Fraction(repr(epsilon))
        if not half <= middle <= 1 - half:
            raise MergeError(
                f"density {density:g} with epsilon {epsilon:g} gives probabilities outside 0 to 1",
                hint="make epsilon smaller",
            )


def _shares_and_probabilities(values: Mapping[str, Any]) -> None:
    positive_sum(values)
    _probabilities(values)


def _factors(model: Model, values: Mapping[str, Any]) -> dict[str, list[float]]:
    def thinned(deltas: Sequence[Tensor], context: Context) -> list[Tensor]:
        given = (values["density"], values["epsilon"], "none", values["seed"])
        return _thin(deltas, context, None, *given)

    return l1_factors(model, thinned, "row")


_PREPASS = Prepass(_factors, lambda values: "tensor" if values["rescale"] == "l1" else "none")


@strategy(
    paper="arXiv:2406.11617",
    slicing="row",
    helps=OF_DISTINCT_TASKS,
    scaled_by="lambda",
    version=2,
    check=_shares_and_probabilities,
    prepass=_PREPASS,
)
def della(
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    prepass: Factors | None = None,
    *,
    density: Density = (0.5,),
    epsilon: Epsilon = (0.15,),
    weight: Shares = (1.0,),
    lambda_: Scale = 1.0,
    normalize: Normalize = True,
    rescale: Rescale = "probability",
    seed: Seed = 0,
) -> Tensor:
    """Thin the task vectors by magnitude, and average those that agree on an element's sign.

    In each row (the weights of one output unit) elements are ranked by magnitude (of equals the
    first is the larger). The probability to be kept rises linearly with the rank from density -
    epsilon for the smallest to density + epsilon for the largest; what is kept is divided by its
    own probability, or with ``rescale=l1`` each tensor of each τi keeps its Σ |τi|, as in mergekit.
    Then as in ``ties``, without its trimming.
    """
    thinned = _thin(deltas, context, prepass, density, epsilon, rescale, seed)
    return base + lambda_ * agreeing_mean(thinned, weight, normalize)


@strategy(
    paper="arXiv:2406.11617",
    slicing="row",
    helps=OF_DISTINCT_TASKS,
    scaled_by="lambda",
    version=2,
    check=_probabilities,
    prepass=_PREPASS,
)
def della_linear(
    base: Tensor,
    deltas: Sequence[Tensor],
    context: Context,
    prepass: Factors | None = None,
    *,
    density: Density = (0.5,),
    epsilon: Epsilon = (0.15,),
    weight: Weights = (1.0,),
    lambda_: Scale = 1.0,
    rescale: Rescale = "probability",
    seed: Seed = 0,
) -> Tensor:
    """Thin the task vectors as ``della`` does, and add their weighted sum to the base.

    θ0 + λ Σ wi τi, without an election of signs.
    """
    thinned = _thin(deltas, context, prepass, density, epsilon, rescale, seed)
    return base + lambda_ * weighted_sum(thinned, weight)


def _thin(
    deltas: Sequence[Tensor],
    context: Context,
    factors: Factors | None,
    density: Sequence[float],
    epsilon: Sequence[float],
    rescale: str,
    seed: int,
) -> list[Tensor]:
    thinned = []
    for delta, content, *share in zip(deltas, context.contents, density, epsilon, strict=True):
        probabilities = keep_probabilities(delta.shape[1], *share).to(delta)
        random = (seed, context.name, content, context.start)
        thinned.append(thin_ranked(delta, probabilities, rescale == "probability", random))
    return thinned if factors is None else scaled(thinned, factors)


def keep_probabilities(width: int, density: float, epsilon: float) -> Tensor:
    """Return the keep probability of each element of a row, of the largest magnitude first.

    A row of one element has probability ``density``. Bounds are taken as the decimal numbers that
    they are written as: at density = epsilon the least is 0, where float32 said 3e-8 and an element
    that survived was multiplied by 3.4e7.
    """
    middle, half = Fraction(repr(density)), Fraction(repr(epsilon))
    low, spread = (middle - half, 2 * half) if width > 1 else (middle, Fraction(0))
    steps = torch.arange(width - 1, -1, -1, dtype=torch.float64)
    rising = quotient(steps, max(1, width - 1)) * float(spread) + float(low)
    return rising.clamp(0, 1)
