"""What is left of thinned task vectors, scaled to the L1 norm that they had, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from git_theta.merge.kernels.prepass import Model, l1_norms
from git_theta.merge.kernels.slices import Slice, Slicing
from git_theta.merge.rules.strategy import Context

if TYPE_CHECKING:
    from torch import Tensor

Thin = Callable[[Sequence["Tensor"], Context], Sequence["Tensor"]]

# Norms below are not divided by, as in mergekit 0.1.5.
_SMALLEST = 1e-7


def l1_factors(model: Model, thin: Thin, slicing: Slicing = "element") -> dict[str, list[float]]:
    """Return Σ |τi| / Σ |what ``thin`` leaves of τi| of a model of one tensor, by contributor.

    1 where either is near 0.
    """
    (inputs,) = model.stream(model.names)

    def thinned(piece: Slice) -> Sequence[Tensor]:
        context = Context(piece.name, inputs.shape, inputs.contents, piece.start)
        return thin(piece.deltas, context)

    before = l1_norms(model, lambda piece: piece.deltas, slicing)
    after = l1_norms(model, thinned, slicing)
    pairs = zip(before, after, strict=True)
    return {inputs.name: [old / new if min(old, new) >= _SMALLEST else 1.0 for old, new in pairs]}


def scaled(tensors: Sequence[Tensor], factors: Sequence[float]) -> list[Tensor]:
    """Return each tensor times its factor."""
    return [tensor * factor for tensor, factor in zip(tensors, factors, strict=True)]
