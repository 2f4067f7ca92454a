"""Layers of a model, known by the names of its tensors: ``model.layers.7.mlp.down.weight``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# What the lists of layers of transformers, timm, GGUF and Mamba are called. Other numbers in names
# (experts, parts of a head) are not of layers.
_LAYER = re.compile(
    r"(?:^|(?<=\.))(?P<list>layers|layer|h|blocks|block|blk|resblocks|transformer_blocks)\."
    r"(?P<number>[0-9]{1,6})(?=\.|$)"
)

Counts = Mapping[str, int]
"""Numbers of layers by what stands before their number, as ``model.layers``."""


def layer_of(name: str) -> tuple[str, int] | None:
    """Return the list of layers that a tensor is in, and its number there."""
    found = _LAYER.search(name)
    return (name[: found.end("list")], int(found["number"])) if found else None


def layer_counts(names: Iterable[str]) -> dict[str, int]:
    """Return the number of layers of each list, from the names of all tensors."""
    counts: dict[str, int] = {}
    for name in names:
        if found := layer_of(name):
            layers, number = found
            counts[layers] = max(counts.get(layers, 0), number + 1)
    return counts


def depth_of(name: str, counts: Counts) -> float:
    """Return how deep in the model a tensor is, from 0 (first layer) to 1 (last), as mergekit.

    What is in no layer (embeddings, the last norm, the head) is at 0, and the layer of a model
    that has one only at 1.
    """
    found = layer_of(name)
    if found is None:
        return 0.0
    layers, number = found
    last = counts.get(layers, 0) - 1
    # A stranger's recipe may count fewer layers than there are.
    return min(1.0, number / last) if last > 0 else 1.0


def renumbered(name: str, number: int) -> str:
    """Return the name of the same tensor in another layer."""
    found = _LAYER.search(name)
    assert found is not None, "it is in a layer"
    return f"{name[: found.start('number')]}{number}{name[found.end('number') :]}"
