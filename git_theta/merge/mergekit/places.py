"""Where each tensor of a recipe's result comes from: which models, which layers, how deep it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from git_theta.core.messages import plural
from git_theta.merge.mergekit.document import Settings, Source
from git_theta.merge.planning.layers import Counts, depth_of, layer_of, renumbered
from git_theta.merge.planning.slices import comes_before
from git_theta.merge.rules.slices import MOST_LAYERS, Slice


@dataclass(frozen=True, slots=True)
class Part:
    """Layers of the result: the sources that are merged, in order, and the base that is not."""

    merged: tuple[Source, ...]
    base: Source | None
    parameters: Settings

    @property
    def sources(self) -> tuple[Source, ...]:
        """All models that are read."""
        return (*self.merged, *([self.base] if self.base else []))

    @property
    def length(self) -> int:
        """Number of layers, where the sources have all the same."""
        first, end = self.merged[0].layers or (0, 0)
        return end - first


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor of the result in its part; ``inputs`` are its names in the merged models.

    ``depth`` is from 0, in the first layer of the part and in none, to 1 in the last.
    """

    name: str
    part: Part
    depth: float
    inputs: tuple[str, ...]


def whole(part: Part, names: Sequence[str], counts: Counts) -> Iterator[Place]:
    """Yield the tensors of models that are merged whole."""
    for name in names:
        yield Place(name, part, depth_of(name, counts), (name,) * len(part.merged))


def sliced(parts: Sequence[Part], names: Sequence[str]) -> Iterator[Place]:
    """Yield the tensors of a model of parts, its layers by their new numbers."""
    layers: dict[int | None, list[str]] = {}
    for name in names:
        found = layer_of(name)
        layers.setdefault(found[1] if found else None, []).append(name)
    for name in layers.get(None, []):
        part = parts[0 if comes_before(name) else -1]
        yield Place(name, part, 0.0, (name,) * len(part.merged))
    number = 0
    for part in parts:
        for step in range(part.length):
            yield from _layer(part, step, number, layers)
            number += 1


def _layer(
    part: Part, step: int, number: int, layers: Mapping[int | None, Sequence[str]]
) -> Iterator[Place]:
    own = [source.layers[0] + step for source in part.merged if source.layers]
    depth = step / (part.length - 1) if part.length > 1 else 1.0
    for name in layers.get(own[0], []):
        inputs = tuple(renumbered(name, each) for each in own)
        yield Place(renumbered(name, number), part, depth, inputs)


def unfit(parts: Sequence[Part], method: str, layers: int) -> list[str]:
    """Return why the parts of a model that has ``layers`` cannot be merged, if anything is."""
    problems = []
    for part in parts:
        ranges = [source.layers for source in part.sources]
        for source in part.sources:
            first, end = source.layers or (0, 0)
            if not 0 <= first < end:
                problems.append(f"{source.model}: a slice without layers")
            elif end > layers:
                problems.append(f"{source.model}: a slice to {end} of {plural(layers, 'layer')}")
        if len({end - first for first, end in filter(None, ranges)}) > 1:
            problems.append("slices: the sources of a slice have different numbers of layers")
    if sum(part.length for part in parts if part.merged) > MOST_LAYERS:
        problems.append(f"slices: more than {MOST_LAYERS:,} layers together")
    bases = {part.base.model if part.base else None for part in parts}
    models = {tuple(source.model for source in part.merged) for part in parts}
    if len(bases) > 1 or (bases != {None} and len(models) > 1):
        problems.append(f"slices: {method} of other models, or with another base, in each slice")
    order = order_of(parts)
    if any(list(one) != sorted(one, key=order.index) for one in models):
        problems.append("slices: models in another order in each slice")
    return problems


def order_of(parts: Sequence[Part]) -> tuple[str, ...]:
    """Return the models that are merged, each once."""
    return tuple(dict.fromkeys(source.model for part in parts for source in part.merged))


def slice_of(part: Part) -> Slice:
    """Return the layers of a part as the planner takes them; its base is called ``base``."""
    found = []
    for source in part.sources:
        first, end = source.layers or (0, 0)
        found.append(Slice("base" if source is part.base else source.model, first, end - 1))
    return found[0]._replace(others=tuple(found[1:]))
