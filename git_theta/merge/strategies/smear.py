"""SMEAR: experts merged block by block, by how much each one is routed to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

from git_theta.merge.kernels.prepass import Model, grams
from git_theta.merge.kernels.reductions import weighted_sum
from git_theta.merge.rules.hyperparameters import Range
from git_theta.merge.rules.strategy import Context, Prepass, strategy

if TYPE_CHECKING:
    from torch import Tensor

Routing = Annotated[
    Sequence[tuple[str, Sequence[float]]],
    Range(0, 1e9),
    "probabilities by block, as a JSON file: {GLOB: {BRANCH: NUMBER, ...}, ...}",
]


def similarities(model: Model, values: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return each contributor's share, by parameter, from its cosine to the summed task vectors."""
    products = grams(model, lambda piece: piece.deltas, _block)
    shares = {block: _shares(found[:, :, 0].tolist()) for block, found in products.items()}
    # A block without elements has no dot products.
    return {name: shares[_block(name)] for name in model.names if _block(name) in shares}


def _block(name: str) -> str:
    """Return the name of the module that a parameter belongs to."""
    return name.rpartition(".")[0]


def _shares(products: Sequence[Sequence[float]]) -> list[float]:
    # fsum rounds once: the order of the contributors changes no bit.
    along = [math.fsum(row) for row in products]
    cosines = [
        max(0.0, dot / math.sqrt(row[place])) if row[place] > 0 else 0.0
        for place, (dot, row) in enumerate(zip(along, products, strict=True))
    ]
    return _normalised(cosines)


def _normalised(numbers: Sequence[float]) -> list[float]:
    total = math.fsum(numbers)
    return [number / total if total else 1 / len(numbers) for number in numbers]


@strategy(
    paper="arXiv:2306.03745",
    slicing="element",
    version=2,
    base_if=lambda values: not values["routing"],
    prepass=Prepass(similarities, lambda values: "none" if values["routing"] else "model"),
)
def smear(
    models: Sequence[Tensor],
    context: Context,
    base: Tensor | None = None,
    prepass: Sequence[float] | None = None,
    *,
    routing: Routing = (),
) -> Tensor:
    """Average the contributors block by block, weighted by how much is routed to each.

    Σ pi θi with Σ pi = 1. A parameter belongs to the block of the first glob of ``routing`` that it
    matches; one that matches none is averaged. Without a routing, blocks are modules, and pi is
    proportional to the cosine of τi to Σ τj, 0 where that is negative.
    """
    chosen = prepass or next(
        (_normalised(row) for glob, row in routing if fnmatchcase(context.name, glob)),
        [1 / len(models)] * len(models),
    )
    return weighted_sum(models, chosen)
