"""Fisher-weighted averaging."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.prepass import Model, squared_norms
from git_theta.merge.kernels.reductions import quotient, weighted_sum
from git_theta.merge.rules.hyperparameters import Range, Shares, Words, positive_sum
from git_theta.merge.rules.strategy import Prepass, strategy

if TYPE_CHECKING:
    from torch import Tensor


def lengths(model: Model, values: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return, by parameter, the model-wide L2 norm of each contributor's Fisher information."""
    norms = [math.sqrt(square) for square in squared_norms(model, lambda piece: piece.statistics)]
    return dict.fromkeys(model.names, norms)


@strategy(
    paper="arXiv:2111.09832",
    slicing="element",
    version=2,
    check=positive_sum,
    prepass=Prepass(lengths, lambda values: "model" if values["normalize"] else "none"),
)
def fisher(
    models: Sequence[Tensor],
    fisher: Sequence[Tensor],
    prepass: Sequence[float] | None = None,
    *,
    weight: Shares = (1.0,),
    floor: Annotated[float, Range(0), "the least information that any element counts with"] = 1e-6,
    normalize: Annotated[bool, "scale each model's information to unit L2 norm"] = True,
    favor: Annotated[
        Sequence[bool], Words(("none",)), "the one contributor that the floor holds for"
    ] = (),
) -> Tensor:
    """Average the contributors, each element weighted by its Fisher information.

    Σ wi Fi θi / Σ wi Fi, Fi the diagonal of the Fisher information, clamped below by ``floor``;
    with ``favor`` only that contributor's is, so that it wins where no other has information. The
    weighted mean where all Fi are 0.
    """
    norms = prepass or [1.0] * len(models)
    floors = [floor if chosen or not any(favor) else 0.0 for chosen in favor]
    known = [
        quotient(f, norm or 1.0).clamp(min=least) * w
        for f, norm, least, w in zip(fisher, norms, floors, weight, strict=True)
    ]
    total = weighted_sum(known, [1.0] * len(known))
    merged = weighted_sum(models, known) / total
    if float(total.amin()) > 0:
        return merged
    mean = quotient(weighted_sum(models, weight), sum(weight))
    return torch.where(total > 0, merged, mean)
