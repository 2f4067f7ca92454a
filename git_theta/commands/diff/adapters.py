"""Adapters of two versions, compared by the products of their factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from git_theta.commands.diff.changes import Tensor, TensorChange, tensors_of
from git_theta.commands.diff.products import Pair, cores, pairs_of, read_factors
from git_theta.commands.diff.values import Sums
from git_theta.commands.diff.versions import Pair as Versions


@dataclass(frozen=True, slots=True)
class ProductChange:
    """The update of one module that differs, in place of its ``changes`` of factors."""

    old: Pair
    new: Pair
    changes: tuple[TensorChange, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every factor, changed or not."""
        return (self.old.down, self.old.up, self.new.down, self.new.up)

    @property
    def update(self) -> str:
        """``LoRA (8)``, or ``LoRA (8 -> 16)`` where the rank changed."""
        ranks = dict.fromkeys((self.old.rank, self.new.rank))
        return f"LoRA ({' -> '.join(map(str, ranks))})"

    @property
    def change(self) -> TensorChange:
        """The product as if it were a tensor, with the bytes of its factors."""
        return TensorChange("changed", _as_tensor(self.old), _as_tensor(self.new))


def product_changes(versions: Versions, changes: Sequence[TensorChange]) -> list[ProductChange]:
    """Return the updates whose factors are among ``changes`` and that both versions have."""
    sides = (versions.old, versions.new)
    if any(side.manifest is None or side.fields is None for side in sides):
        return []
    old, new = (pairs_of(tensors_of(side.manifest).values(), side.fields) for side in sides)
    touched = {change.name: change for change in changes if change.old and change.new}
    found = []
    for name in old.keys() & new.keys():
        concerned = tuple(touched[each] for each in new[name].names if each in touched)
        if concerned and old[name].names == new[name].names and _fit(old[name], new[name]):
            found.append(ProductChange(old[name], new[name], concerned))
    return found


def compare_products(change: ProductChange, versions: Versions) -> Sums:
    """Return the sums over the elements of both products; how many changed is not known."""
    old, new = cores(
        [
            read_factors(change.old, versions.old.content),
            read_factors(change.new, versions.new.content),
        ]
    )
    moved = new - old
    return Sums(
        old_squares=float((old * old).sum()),
        new_squares=float((new * new).sum()),
        products=float((old * new).sum()),
        squares=float((moved * moved).sum()),
        largest=None,
    )


def _fit(old: Pair, new: Pair) -> bool:
    return old.shape == new.shape


def _as_tensor(pair: Pair) -> Tensor:
    chunks = (*pair.down.chunks, *pair.up.chunks)
    return replace(pair.up, name=pair.name, shape=pair.shape, chunks=chunks)
