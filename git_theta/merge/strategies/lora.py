"""LoRA updates merged as the products of their factors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from git_theta.merge.kernels.lora import (
    CoreSpace,
    LoraFactors,
    check,
    concatenated,
    in_order,
    truncated,
)
from git_theta.merge.rules.hyperparameters import InnerRule, Range, Weights
from git_theta.merge.rules.strategy import Target, strategy
from git_theta.merge.strategies.evidence import OF_DISTINCT_TASKS

if TYPE_CHECKING:
    from torch import Tensor

Values = Mapping[str, Any]

# What is left of 1 where weights such as three times 1/3 add up to it.
_ROUNDING = 1e-12


def _of_base(weight: Sequence[float]) -> float:
    """Return the weight of the base's update in Δ0 + Σ wi (Δi - Δ0)."""
    share = 1 - math.fsum(weight)
    return share if abs(share) > _ROUNDING else 0.0


def _sum_of_ranks(values: Values, ranks: Sequence[int], base: int) -> int:
    return sum(ranks) + (base if _of_base(values["weight"]) else 0)


def _rank_of_all(values: Values, ranks: Sequence[int], base: int) -> int:
    chosen: int = values["rank"]
    return chosen or sum(ranks) + base


def _rank(values: Values, ranks: Sequence[int], base: int) -> int:
    chosen: int = values["rank"]
    return chosen or ranks[0]


@strategy(paper="arXiv:2106.09685", rank=_sum_of_ranks)
def cat(
    factors: Sequence[LoraFactors],
    target: Target,
    base: LoraFactors | None = None,
    *,
    weight: Weights = (1.0,),
) -> LoraFactors:
    """Sum LoRA updates exactly, by concatenating their factors.

    Δ0 + Σ wi (Δi - Δ0) with Δi = si Bi Ai and Δ0 the ancestor's, 0 if it has none: as
    ``task_arithmetic`` of the merged weights. The rank is the sum of the ranks (with that of the
    ancestor, unless Σ wi = 1), and the adapter's configuration is renewed. As ``cat`` of PEFT's
    ``add_weighted_adapter``.
    """
    units, weights = _with_base(factors, base, weight)
    return concatenated(units, weights, target.scale)


@strategy(paper="arXiv:2106.09685", rank=_rank, reproducible=False)
def svd(
    factors: Sequence[LoraFactors],
    target: Target,
    base: LoraFactors | None = None,
    *,
    rank: Annotated[int, Range(0, 1 << 16), "of the merged factors; 0 is that of ours"] = 0,
    weight: Weights = (1.0,),
) -> LoraFactors:
    """Sum LoRA updates, and return the nearest factors of a given rank.

    The sum is that of ``cat``; of its singular value decomposition the largest ``rank`` values are
    kept (Eckart and Young, 1936). In float64; CPUs agree to about 1e-12 relative before rounding.
    """
    units, weights = _with_base(factors, base, weight)
    return truncated(units, weights, target.rank, target.scale)


def _with_base(
    factors: Sequence[LoraFactors], base: LoraFactors | None, weight: Sequence[float]
) -> tuple[list[LoraFactors], list[float]]:
    share = _of_base(weight)
    if base is None or not share:
        return list(factors), list(weight)
    return [*factors, base], [*weight, share]


_SUM: InnerRule = {"strategy": "task_arithmetic"}


@strategy(
    paper="arXiv:2509.17786",
    rank=_rank_of_all,
    reproducible=False,
    helps=OF_DISTINCT_TASKS,
)
def core(
    factors: Sequence[LoraFactors],
    target: Target,
    merge: Callable[[Sequence[Tensor], Tensor | None], Tensor],
    base: LoraFactors | None = None,
    *,
    rule: Annotated[InnerRule, "the strategy that merges the small matrices"] = _SUM,
    rank: Annotated[
        int, Range(0, 1 << 16), "of the merged factors; 0 is the sum of the ranks, which is exact"
    ] = 0,
) -> LoraFactors:
    """Merge LoRA updates by any strategy of tensors, in the space that they have in common.

    U is the left singular basis of [B1 ... BN], V the right one of the stacked A, with those of the
    ancestor where it has the update. Mi = Uᵀ si Bi Ai Vᵀ are merged by ``rule``, with M0 of the
    ancestor (0 if it has none) as their base, and the result is U M V (Core Space). No matrix of
    the weight's size is made; task_arithmetic gives what ``cat`` gives. A rule that must know the
    whole model, as ties, sees one update at a time.
    """
    every = [*factors, *([base] if base else [])]
    check(every)
    space = CoreSpace.of(in_order(every))
    matrices = [space.matrix(unit) for unit in factors]
    ancestor = space.matrix(base) if base else matrices[0].new_zeros(matrices[0].shape)
    return space.factors(merge(matrices, ancestor), factors[0], target.rank, target.scale)
