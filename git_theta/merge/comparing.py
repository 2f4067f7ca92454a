"""How far, and in which directions, the sides of a merge moved a group of parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from git_theta.merge.arithmetic import dots
from git_theta.merge.decision import Combine
from git_theta.merge.inputs import Slice, each
from git_theta.merge.loading import Loader
from git_theta.merge.reading import BUDGET
from git_theta.pipeline import ahead


@dataclass(frozen=True, slots=True)
class Comparison:
    """Task vectors over a group of parameters, two of them compared.

    ``relative`` is the length of each side's task vector over that of the base; ``cosine`` is the
    one between the first two; ``opposed`` is the share of the elements that both changed in which
    their signs differ. Each is ``None`` where it is not defined: no base, nothing changed.
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


def compare(steps: Sequence[Combine], loader: Loader) -> Comparison:
    """Compare the sides over ``steps``, whose tensors are read one parameter at a time."""
    sums = _Sums()
    for inputs in ahead(loader.load, steps, lambda step: step.weight, BUDGET, loader.threads):
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


def _count(mask: Tensor) -> int:
    return int(torch.count_nonzero(mask))


def _comparison(sums: _Sums) -> Comparison:
    base = math.sqrt(math.fsum(sums.base))
    lengths = [math.sqrt(math.fsum(values)) for values in sums.own.values()]
    product = math.prod(lengths[:2])
    return Comparison(
        relative=tuple(length / base if base else None for length in lengths),
        cosine=math.fsum(sums.across) / product if product else None,
        opposed=sums.opposed / sums.both if sums.both else None,
    )
