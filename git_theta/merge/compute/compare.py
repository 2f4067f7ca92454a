"""How far, and in which directions, the sides of a merge moved a group of parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True, slots=True)
class Comparison:
    """Task vectors over a group of parameters, two of them compared.

    ``relative`` is the length of each side's task vector over that of the base; ``cosine`` is the
    one between the first two; ``opposed`` is the share of the elements that both changed in which
    their signs differ. Each is ``None`` where it is not defined: no base, nothing changed, NaN.
    """

    relative: tuple[float | None, ...]
    cosine: float | None
    opposed: float | None


@dataclass
class _Sums:
    base: list[float] = field(default_factory=list)
    own: dict[int, list[float]] = field(default_factory=dict)
    across: list[float] = field(default_factory=list)
    both: int = 0
    opposed: int = 0


def compare(actions: Sequence[Merge], units: Sequence[LoraUnit], loader: Loader) -> Comparison:
    """Compare the sides over parameters, which are read one at a time, and over LoRA updates."""
    sums = _Sums()
    for unit in units:
        _add_update(sums, unit, loader)
    for inputs in ahead(loader.load, actions, lambda action: action.weight, BUDGET, loader.threads):
        if inputs.base is not None:
            for _ in each(inputs.pieces(), lambda piece: _add(sums, piece), 1):
                pass
    return _comparison(sums)


def _add(sums: _Sums, piece: Slice) -> None:
    assert piece.base is not None
    sums.base += dots(piece.base, piece.base)
    for side, delta in enumerate(piece.deltas):
        sums.own.setdefault(side, []).extend(dots(delta, delta))
    first, second = piece.deltas[:2]
    sums.across += dots(first, second)
    product = first.sign() * second.sign()
    sums.both += _count(product != 0)
    sums.opposed += _count(product < 0)


def _add_update(sums: _Sums, unit: LoraUnit, loader: Loader) -> None:
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
    if unit.sides[:2] == (0, 1):
        sums.across.append(moved[0][1])


def _count(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask))


def _comparison(sums: _Sums) -> Comparison:
    base = _length(sums.base)
    lengths = [_length(values) for values in sums.own.values()]
    product = math.prod(lengths[:2])
    return Comparison(
        relative=tuple(_ratio(length, base) for length in lengths),
        cosine=_ratio(_total(sums.across), product),
        opposed=sums.opposed / sums.both if sums.both else None,
    )


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
