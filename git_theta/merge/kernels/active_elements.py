"""Elements that few contributors changed: compiled where that is possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from git_theta.core import kernels
from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.reductions import above, are_compiled, below, weighted_sum

if TYPE_CHECKING:
    from torch import Tensor


def active_counts(deltas: Sequence[Tensor], threshold: float) -> list[tuple[int, int]]:
    """Return how many elements of a slice each contributor changed, and how many it alone."""
    if are_compiled(deltas):
        flat = [delta.reshape(-1).numpy() for delta in deltas]
        return [(int(a), int(b)) for a, b in kernels.active_counts(flat, threshold)]
    active, count = _active(deltas, threshold)
    alone = below(count, 1.5)
    # A slice has less than 2^24 elements: float32 counts them exactly.
    return [(int(mask.sum()), int((mask * alone).sum())) for mask in active]


def active_mean(deltas: Sequence[Tensor], threshold: float, gains: Sequence[float]) -> Tensor:
    """Return the mean over those that changed an element, times a gain where one alone did."""
    if are_compiled(deltas):
        flat = [delta.reshape(-1).numpy() for delta in deltas]
        mean = kernels.active_mean(flat, threshold, gains)
        return torch.from_numpy(mean).view(deltas[0].shape)
    active, count = _active(deltas, threshold)
    alone = above(count, 0.5) * below(count, 1.5)
    # 1 where nobody is active.
    count += below(count, 0.5)
    kept = [delta * mask for delta, mask in zip(deltas, active, strict=True)]
    return weighted_sum(kept, [1 + alone * (gain - 1) for gain in gains]) / count


def _active(deltas: Sequence[Tensor], threshold: float) -> tuple[list[Tensor], Tensor]:
    """Return 1.0 where each contributor changed an element, and how many did."""
    active = [above(delta.abs(), threshold) for delta in deltas]
    return active, weighted_sum(active, [1.0] * len(active))
