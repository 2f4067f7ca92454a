"""Tensors arranged for drawing: by module and layer, and by how much they changed."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

from git_theta.cli.text import printable, shortened
from git_theta.commands.diff import Sums
from git_theta.commands.diff.rows import Measured
from git_theta.commands.report import Agreement
from git_theta.core.grouping import layer_of, pattern_of
from git_theta.core.layout import natural_order

STEPS = 8
"""Colours of the heat map."""

MODULES, LAYERS = 60, 200
"""What a heat map has room for: the modules that changed most, and the first layers."""

OUTSIDE = "–"
"""In place of a layer's number: embeddings, heads."""

# Characters of a module's label.
_LABEL = 60

# Below this share of the largest, changes are one.
_SPAN = 1e4


@dataclass(frozen=True, slots=True)
class Cell:
    """Tensors of one module of one layer; ``relative`` is their change, ``inf`` that of zeros."""

    module: str
    layer: str
    name: str
    tensors: int
    relative: float


def cells_of(changes: Sequence[Measured]) -> list[Cell]:
    """Return the cells of a heat map: modules in the order of the model, layers from the first.

    Modules are called by what tells them apart. What could not be measured is left out.
    """
    places: dict[tuple[str, int | None], list[Measured]] = {}
    for each in changes:
        if each.sums and each.sums.is_measured:
            name = each.change.name
            places.setdefault((pattern_of(name), layer_of(name)), []).append(each)
    sums = {
        place: reduce(add, (each.sums for each in group if each.sums))
        for place, group in places.items()
    }
    kept = _most_changed(sums)
    labels = labels_of(sorted({pattern for pattern, _ in kept}, key=natural_order))
    return [
        Cell(
            module=labels[pattern],
            layer=OUTSIDE if layer is None else str(layer),
            name=shortened(printable(places[pattern, layer][0].change.name)),
            tensors=len(places[pattern, layer]),
            relative=_relative(sums[pattern, layer]),
        )
        for pattern, layer in sorted(kept, key=_order)
    ]


def _order(place: tuple[str, int | None]) -> tuple[object, ...]:
    """Modules outside of layers come first."""
    pattern, layer = place
    return layer is not None, natural_order(pattern), layer or 0


def _relative(sums: Sums) -> float:
    if sums.relative is None:
        return math.inf if sums.squares else 0.0
    return sums.relative


def _most_changed(sums: Mapping[tuple[str, int | None], Sums]) -> list[tuple[str, int | None]]:
    largest: dict[str, float] = {}
    for (pattern, _), each in sums.items():
        largest[pattern] = max(largest.get(pattern, 0.0), _relative(each))
    modules = set(sorted(largest, key=lambda pattern: -largest[pattern])[:MODULES])
    numbers = sorted({layer for pattern, layer in sums if layer is not None and pattern in modules})
    layers = {None, *numbers[:LAYERS]}
    return [place for place in sums if place[0] in modules and place[1] in layers]


def labels_of(patterns: Sequence[str]) -> dict[str, str]:
    """Return short names of modules: without what all have in front, and ``.weight`` behind."""
    split = [pattern.split(".") for pattern in patterns if "*" in pattern]
    shared = 0
    if len(split) > 1:
        shortest = min(map(len, split)) - 1
        while shared < shortest and len({parts[shared] for parts in split}) == 1:
            shared += 1
    found: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for pattern in patterns:
        parts = pattern.split(".")[shared if "*" in pattern else 0 :]
        label = _cut(printable(".".join(parts).removesuffix(".weight") or pattern))
        taken[label] += 1
        found[pattern] = label if taken[label] == 1 else f"{label} ({taken[label]})"
    return found


def _cut(label: str) -> str:
    """Return a label whose end and beginning are there: Vega takes minutes to cut one of 60 KB."""
    return label if len(label) <= _LABEL else f"{label[: _LABEL // 2]}…{label[-_LABEL // 2 :]}"


@dataclass(frozen=True, slots=True)
class Scale:
    """Steps of equal ratio between the smallest and the largest change; ``starts`` are rising."""

    starts: tuple[float, ...]

    @property
    def labels(self) -> list[str]:
        """What the legend calls the steps."""
        return [f"{start:.2g}" for start in self.starts]

    def step(self, value: float) -> int:
        """Return the number of the step that a value is in."""
        return max(0, bisect_right(self.starts, value) - 1)


def scale_of(values: Sequence[float], steps: int = STEPS) -> Scale:
    """Return a scale for these values, of which the infinite ones count as the largest."""
    finite = [value for value in values if 0 < value < math.inf]
    if not finite:
        return Scale((0.0,))
    high = max(finite)
    low = max(min(finite), high / _SPAN)
    ratio = (high / low) ** (1 / steps)
    if ratio < 1.01:
        return Scale((low,))
    return Scale(tuple(low * ratio**step for step in range(steps)))


@dataclass(frozen=True, slots=True)
class LayerAgreement:
    """What two branches did to a layer."""

    layer: str
    cosine: float | None
    disagreement: float | None


def by_layer(agreements: Mapping[str, Agreement]) -> list[LayerAgreement]:
    """Return the agreement in each layer, and outside of layers, in order."""
    found: dict[int, Agreement] = {}
    for name, each in agreements.items():
        layer = layer_of(name)
        key = -1 if layer is None else layer
        found[key] = found.get(key, Agreement()) + each
    return [
        LayerAgreement(OUTSIDE if key < 0 else str(key), total.cosine, total.disagreement)
        for key, total in sorted(found.items())[: LAYERS + 1]
    ]


def by_module(agreements: Mapping[str, Agreement]) -> list[tuple[str, int, Agreement]]:
    """Return the agreement in each group of tensors and their number: opposed ones first."""
    found: dict[str, list[Agreement]] = {}
    for name, each in agreements.items():
        found.setdefault(pattern_of(name), []).append(each)
    rows = [(pattern, len(group), sum(group, Agreement())) for pattern, group in found.items()]
    return sorted(rows, key=lambda row: (row[2].cosine or 0.0, natural_order(row[0])))
