"""Strategies for two models, ours and theirs, as mergekit 0.1.5 defines them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import numpy as np

from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.rules.hyperparameters import Range
from git_theta.merge.rules.strategy import strategy

if TYPE_CHECKING:
    from torch import Tensor

# Keeps the logarithm of a probability finite.
_EPSILON = 1e-8


@strategy(
    paper="arXiv:2403.13257",
    slicing="tensor",
    contributors=(2, 2),
    ordered=True,
    reproducible=False,
)
def arcee_fusion(models: Sequence[Tensor]) -> Tensor:
    """Take from theirs what matters most, and the rest from ours.

    An element's importance is |θ1 - θ0| KL(softmax(θ1) || softmax(θ0)), the divergence being that
    of its row; θ0 is ours and θ1 theirs. Elements are taken from theirs where it is at least the
    median plus 1.5 times the interquartile range over the tensor.
    """
    ours, theirs = models
    flat = ours.reshape(-1, ours.shape[-1] if ours.dim() else 1)
    other = theirs.reshape(flat.shape)
    p, q = torch.softmax(other, -1) + _EPSILON, torch.softmax(flat, -1) + _EPSILON
    divergence = (p * torch.log(p / q)).sum(-1, keepdim=True)
    importance = (other - flat).abs() * divergence
    low, middle, high = _quantiles(importance.reshape(-1), (0.25, 0.5, 0.75))
    is_taken = (importance >= middle + 1.5 * (high - low)).to(flat.dtype)
    return (flat + (other - flat) * is_taken).reshape(ours.shape)


def _quantiles(numbers: Tensor, shares: Sequence[float]) -> list[Tensor]:
    """Return the numbers below which these shares are, without sorting all."""
    ranks = [int(share * (len(numbers) - 1)) for share in shares]
    if numbers.device.type != "cpu":
        return [numbers.kthvalue(rank + 1).values for rank in ranks]
    return list(torch.from_numpy(np.partition(numbers.numpy(), ranks)[ranks]))


@strategy(paper="arXiv:2403.13257", slicing="element", version=2, contributors=(2, 2), ordered=True)
def nearswap(
    models: Sequence[Tensor],
    *,
    t: Annotated[
        float, Range(0, above=True), "differences up to this size are taken from theirs"
    ] = 1e-3,
) -> Tensor:
    """Take from theirs what is near to ours, and move towards it the less the farther it is.

    θ0 + w (θ1 - θ0) with w = min(1, t / max(|θ1 - θ0|, 1e-6)); θ0 is ours and θ1 theirs. No element
    moves by more than ``t``.
    """
    ours, theirs = models
    share = (t / (ours - theirs).abs().clamp(min=1e-6)).clamp(0, 1)
    return share * theirs + (1 - share) * ours


@strategy(paper="arXiv:2403.13257", slicing="element", ordered=True)
def passthrough(
    models: Sequence[Tensor],
    *,
    side: Annotated[Sequence[bool], "whose tensor it is; ours, unless said otherwise"] = (),
    scale: Annotated[float, "the factor of every element"] = 1.0,
) -> Tensor:
    """Take one contributor's tensor, times a number.

    scale θi. For what is not to be scaled, ``take`` does it for any dtype, and bit for bit.
    """
    return models[side.index(True) if True in side else 0] * scale
