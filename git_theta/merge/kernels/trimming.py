"""Task vectors trimmed by thresholds, and ranked by magnitude: compiled where that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from git_theta.core import kernels
from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.randomness import run_keys, uniform
from git_theta.merge.kernels.reductions import agreeing_mean, are_compiled, below, limited_mean
from git_theta.merge.kernels.thresholds import MagnitudeThreshold, is_float32

if TYPE_CHECKING:
    from torch import Tensor


def trimmed_mean(
    deltas: Sequence[Tensor],
    thresholds: Sequence[MagnitudeThreshold],
    start: int,
    weights: Sequence[float],
    normalize: bool,
) -> Tensor:
    """Return ``agreeing_mean`` of task vectors trimmed to the elements that thresholds keep.

    ``start`` is the flat index of the first.
    """
    if are_compiled(deltas) and all(is_float32(each.magnitude) for each in thresholds):
        limits = [(each.magnitude, max(-1, each.last - start)) for each in thresholds]
        return limited_mean(deltas, limits, weights, normalize)
    trimmed = [each.trim(delta, start) for each, delta in zip(thresholds, deltas, strict=True)]
    return agreeing_mean(trimmed, weights, normalize)


def keep_between(
    delta: Tensor, dropped: MagnitudeThreshold, reached: MagnitudeThreshold, start: int
) -> Tensor:
    """Return a task vector times 1 for what ``reached`` keeps and ``dropped`` does not, else 0."""
    limits = [(each.magnitude, max(-1, each.last - start)) for each in (dropped, reached)]
    if are_compiled([delta]) and all(is_float32(magnitude) for magnitude, _ in limits):
        kept = kernels.between(delta.reshape(-1).numpy(), *limits)
        return torch.from_numpy(kept).view(delta.shape)
    sizes = delta.abs()
    mask = reached.keeps(sizes, start) - dropped.keeps(sizes, start)
    return delta * mask.to(delta.dtype)


def thin(delta: Tensor, random: Tensor, probability: Tensor, divides: bool) -> Tensor:
    """Return a task vector times 1 where ``random`` is below the ``probability``, else times 0.

    With ``divides``, over the probability; where that is 0 there is nothing to divide.
    """
    if are_compiled([delta, random, probability]):
        given = [each.reshape(-1).numpy() for each in (delta, random, probability)]
        kept = kernels.thin(given[0], given[1], given[2], divides)
        return torch.from_numpy(kept).view(delta.shape)
    survivors = delta * below(random, probability).to(delta.dtype)
    return survivors / probability.masked_fill(probability == 0, 1) if divides else survivors


def thin_ranked(
    delta: Tensor, probabilities: Tensor, divides: bool, random: tuple[int, str, str, int]
) -> Tensor:
    """Return ``thin`` where each row's largest magnitude has the first of the ``probabilities``.

    And so on: ``[rows, width]``; of equals the first comes first. ``random`` are the first
    arguments of ``uniform``.
    """
    if are_compiled([delta, probabilities]):
        first, keys = run_keys(*random, delta.numel())
        given = delta.numpy(), probabilities.numpy(), first, keys, divides
        return torch.from_numpy(kernels.thin_ranked(*given))
    numbers = uniform(*random, delta.numel(), delta.device).view_as(delta)
    return thin(delta, numbers, spread_by_rank(delta.abs(), probabilities), divides)


def spread_by_rank(magnitudes: Tensor, values: Tensor) -> Tensor:
    """Give each row's largest magnitude the first of ``values``, and so on: ``[rows, width]``.

    Of equals the first comes first.
    """
    if are_compiled([magnitudes, values]):
        numbers = magnitudes.numpy().view(np.uint32)
        return torch.from_numpy(kernels.spread(numbers, values.numpy()))
    places = torch.argsort(magnitudes, dim=1, descending=True, stable=True)
    return torch.empty_like(magnitudes).scatter_(1, places, values.expand_as(magnitudes))
