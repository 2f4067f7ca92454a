"""Whether two branches pull tensors the same way: cosines and signs of their task vectors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta.commands.diff.products import Factors
from git_theta.commands.diff.segments import Content
from git_theta.commands.similar.vectors import Changes, added
from git_theta.commands.task_vectors import Stretch, aligned, changes_in
from git_theta.core.parallel import in_order

Doubles = NDArray[np.float64]

# Elements of a product of factors that are made at a time.
_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class Agreement:
    """Sums over the elements of a tensor, or of several, that both branches changed: they add up.

    ``moved`` elements were changed by both, ``opposed`` ones of them in opposite directions.
    """

    first: float = 0.0
    second: float = 0.0
    products: float = 0.0
    moved: int = 0
    opposed: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        """Return the sums over the elements of both."""
        return Agreement(
            self.first + other.first,
            self.second + other.second,
            self.products + other.products,
            self.moved + other.moved,
            self.opposed + other.opposed,
        )

    @property
    def cosine(self) -> float | None:
        """Cosine of the two changes; ``None`` where either has no length."""
        lengths = math.sqrt(self.first) * math.sqrt(self.second)
        if not lengths or not math.isfinite(lengths):
            return None
        return max(-1.0, min(1.0, self.products / lengths))

    @property
    def disagreement(self) -> float | None:
        """Elements that were pushed in opposite directions, of those that both changed."""
        return self.opposed / self.moved if self.moved else None


def agreements(
    one: Changes, other: Changes, content: Content, workers: int
) -> dict[str, Agreement]:
    """Compare the changes of two versions of a checkpoint, by tensor (of an adapter: by module).

    What only one of them changed is left out. A chunk of each version per thread is in memory.
    """
    found: dict[str, Agreement] = {}
    stretches = (
        (name, dtypes, stretch)
        for name in one.tensors
        if name in other.tensors
        for base, *versions in [(*one.tensors[name], other.tensors[name][1])]
        for dtypes in [(base.dtype, *(each.dtype for each in versions))]
        for stretch in aligned([base, *versions])
    )

    def compare(item: tuple[str, tuple[str, ...], Stretch]) -> tuple[str, Agreement]:
        name, dtypes, stretch = item
        return name, _total(changes_in(stretch, dtypes, content))

    for name, part in in_order(compare, stretches, workers):
        found[name] = found.get(name, Agreement()) + part
    for name in one.new.keys() & other.new.keys():
        first, second = (added(name, each, content) for each in (one, other))
        if first and second and _shape(first) == _shape(second):
            found[name] = _total(_blocks(first, second))
    return found


def _total(blocks: Iterable[Doubles]) -> Agreement:
    return sum(map(_agreement, blocks), Agreement())


def _agreement(changes: Doubles) -> Agreement:
    one, other = changes
    signs = np.sign(one) * np.sign(other)
    return Agreement(
        first=float(one @ one),
        second=float(other @ other),
        products=float(one @ other),
        moved=int(np.count_nonzero(signs)),
        opposed=int(np.count_nonzero(signs < 0)),
    )


def _shape(factors: Factors) -> tuple[int, int]:
    return len(factors.up), factors.down.shape[1]


def _blocks(one: Factors, other: Factors) -> Iterator[Doubles]:
    """Yield two products, some rows at a time."""
    rows, columns = _shape(one)
    step = max(1, _BLOCK // columns)
    for first in range(0, rows, step):
        here = slice(first, first + step)
        yield np.stack([(each.up[here] @ each.down).ravel() for each in (one, other)])
