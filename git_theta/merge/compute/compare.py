"""How far, and in which directions, the sides of a merge moved a group of parameters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor

from git_theta.checkpoint.reader import BUDGET
from git_theta.core.parallel import ahead
from git_theta.merge.compute.joint import factors_of
from git_theta.merge.compute.loader import Loader
from git_theta.merge.kernels.lora import inner_products
from git_theta.merge.kernels.reductions import dots
from git_theta.merge.kernels.slices import Slice, each
from git_theta.merge.planning.actions import Merge
from git_theta.merge.planning.lora import LoraUnit

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Task vectors over a group of parameters, compared in pairs.

    ``relative`` is the length of each side's task vector over that of the base; ``cosines`` are
    those of pairs of sides; ``opposites`` are the shares of the elements that both changed in which
    their signs differ. Each is ``None`` where it is not defined: no base, nothing changed, NaN.
    """

    relative: tuple[float | None, ...]
    cosines: Mapping[Pair, float | None]
    opposites: Mapping[Pair, float | None]

    @property
    def cosine(self) -> float | None:
        """That of the first two sides."""
        return self.cosines.get((0, 1))

    @property
    def opposed(self) -> float | None:
        """The share of opposite signs of the first two sides."""
        return self.opposites.get((0, 1))


@dataclass
class Sums:
    """What a comparison is made of, over any number of parameters; sums of sums are sums."""

    base: list[float] = field(default_factory=list)
    own: dict[int, list[float]] = field(default_factory=dict)
    across: dict[Pair, list[float]] = field(default_factory=dict)
    both: Counter[Pair] = field(default_factory=Counter)
    opposed: Counter[Pair] = field(default_factory=Counter)

    def add(self, other: Sums) -> None:
        """Add those of further parameters."""
        self.base += other.base
        for side, values in other.own.items():
            self.own.setdefault(side, []).extend(values)
        for pair, values in other.across.items():
            self.across.setdefault(pair, []).extend(values)
        self.both.update(other.both)
        self.opposed.update(other.opposed)

    def comparison(self) -> Comparison:
        """Return the comparison."""
        base = _length(self.base)
        lengths = {side: _length(values) for side, values in sorted(self.own.items())}
        return Comparison(
            tuple(_ratio(length, base) for length in lengths.values()),
            {
                (i, j): _ratio(_total(values), lengths[i] * lengths[j])
                for (i, j), values in self.across.items()
            },
            {pair: self.opposed[pair] / count for pair, count in self.both.items() if count},
        )


def compare(actions: Sequence[Merge], units: Sequence[LoraUnit], loader: Loader) -> Comparison:
    """Compare the sides over parameters, which are read one at a time, and over LoRA updates."""
    return measure(actions, units, loader).comparison()


def measure(actions: Sequence[Merge], units: Sequence[LoraUnit], loader: Loader) -> Sums:
    """Return what ``compare`` is made of."""
    sums = Sums()
    for unit in units:
        _add_update(sums, unit, loader)
    for inputs in ahead(loader.load, actions, lambda action: action.weight, BUDGET, loader.threads):
        if inputs.base is not None:
            for found in each(inputs.pieces(), _sums_of, inputs.workers):
                sums.add(found)
    return sums


def _sums_of(piece: Slice) -> Sums:
    assert piece.base is not None
    sums = Sums(dots(piece.base, piece.base))
    deltas = piece.deltas
    sums.own = {side: dots(delta, delta) for side, delta in enumerate(deltas)}
    signs = [delta.sign() for delta in deltas]
    for i, j in combinations(range(len(deltas)), 2):
        sums.across[i, j] = dots(deltas[i], deltas[j])
        product = signs[i] * signs[j]
        sums.both[i, j] = _count(product != 0)
        sums.opposed[i, j] = _count(product < 0)
    return sums


def _add_update(sums: Sums, unit: LoraUnit, loader: Loader) -> None:
    """Add the task vectors of a LoRA update, which are differences of its products."""
    pairs = [*unit.pairs, *([unit.base] if unit.base else [])]
    products = inner_products([factors_of(pair, loader.tensor) for pair in pairs])
    number = len(unit.pairs)
    # Rows that make task vectors of the updates; the last is the base's own.
    rows = torch.eye(len(pairs), dtype=torch.float64)
    if unit.base:
        rows[:number, number] = -1
    moved = (rows @ products @ rows.T).tolist()
    sums.base += [moved[number][number]] if unit.base else []
    for place, side in enumerate(unit.sides):
        sums.own.setdefault(side, []).append(moved[place][place])
    for (i, one), (j, other) in combinations(enumerate(unit.sides), 2):
        sums.across.setdefault((one, other), []).append(moved[i][j])


def _count(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask))


def _total(values: Sequence[float]) -> float:
    return math.fsum(values) if all(map(math.isfinite, values)) else math.nan


def _length(squares: Sequence[float]) -> float:
    total = _total(squares)
    # Differences of products may be a little below 0.
    return 0.0 if total < 0 else math.sqrt(total)


def _ratio(above: float, below: float) -> float | None:
    """Return the ratio; ``None`` where it is not defined."""
    found = above / below if below else math.nan
    return found if math.isfinite(found) else None
