"""A weighted mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from git_theta.errors import MergeError
from git_theta.merge.kernels.reductions import quotient, weighted_sum
from git_theta.merge.rules.hyperparameters import Weights
from git_theta.merge.rules.strategy import strategy

if TYPE_CHECKING:
    from torch import Tensor


def _nonzero_sum(values: Mapping[str, Any]) -> None:
    if values["normalize"] and sum(values["weight"]) == 0:
        raise MergeError(
            "the weights add up to 0, which no mean can have",
            hint="change a weight, set normalize=false, or use task_arithmetic",
        )


@strategy(paper="arXiv:2203.05482", slicing="element", check=_nonzero_sum)
def average(
    models: Sequence[Tensor],
    *,
    weight: Weights = (1.0,),
    normalize: Annotated[bool, "divide by the sum of the weights"] = True,
) -> Tensor:
    """Take the weighted mean of the contributors.

    Σ wi θi / Σ wi, or Σ wi θi without ``normalize``. Also called ``linear``.
    """
    total = weighted_sum(models, weight)
    return quotient(total, sum(weight)) if normalize else total
