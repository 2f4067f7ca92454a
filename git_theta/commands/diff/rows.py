"""What changed in one checkpoint, as rows for a person or a script to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Literal

from git_theta.commands.comparison import State, recipe_of
from git_theta.commands.diff.adapters import compare_products, product_changes
from git_theta.commands.diff.changes import Kind, TensorChange, compare_tensors, tensors_of
from git_theta.commands.diff.encodings import update_of
from git_theta.commands.diff.ranks import Rank
from git_theta.commands.diff.values import Sums, measure
from git_theta.commands.diff.versions import Pair, fetch
from git_theta.core.grouping import by_pattern, pattern_of
from git_theta.core.layout import natural_order
from git_theta.workspace import Workspace

Order = Literal["name", "change", "size"]


@dataclass(frozen=True, slots=True)
class Row:
    """Tensors that changed alike; ``name`` is a pattern where they are several.

    ``before`` is the old name where they were renamed. ``size`` is in bytes. ``shape`` is ``None``
    where they differ in it. ``update`` is how the change is stored, where that tells. ``rank`` is
    that of the change of one tensor, where it was measured.
    """

    name: str
    before: str
    tensors: int
    kind: Kind
    update: str | None
    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...] | None
    size: int
    sums: Sums | None
    rank: Rank | None = None


@dataclass(frozen=True, slots=True)
class CheckpointDiff:
    """What changed in the checkpoint at ``path``, which was at ``before``.

    ``tensors`` are those of the later version (of the earlier, where it was deleted), ``counts``
    how many of them changed in what way, and ``rows`` what changed. ``recipe`` tells in a line how
    the later version was merged, if it was.
    """

    path: str
    before: str
    state: State
    tensors: int
    counts: dict[Kind, int]
    rows: tuple[Row, ...]
    recipe: str | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """A change, how it is stored, how far the values moved, and in how many directions.

    ``tensors`` is how many changed: both factors of an adapter's product may.
    """

    change: TensorChange
    update: str | None = None
    sums: Sums | None = None
    rank: Rank | None = None
    tensors: int = 1


def diff_of(
    pair: Pair,
    workers: int,
    workspace: Workspace | None = None,
    *,
    by_tensor: bool = False,
    values: bool = True,
    order: Order = "name",
) -> CheckpointDiff:
    """Return what changed in a checkpoint; without ``values``, what the manifests alone tell.

    Those take equal bytes that were cut into other chunks for changed, and have no rows.
    """
    if not values:
        return summarise(pair, unmeasured(pair), ())
    found = measured(pair, workers, workspace, with_ranks=by_tensor)
    return summarise(pair, found, rows_of(found, by_tensor, order))


def summarise(pair: Pair, found: Sequence[Measured], rows: Sequence[Row]) -> CheckpointDiff:
    """Return ``rows`` with the number of what was ``found``."""
    tensors = tensors_of(pair.new.manifest or pair.old.manifest)
    counts: Counter[Kind] = Counter()
    for each in found:
        counts[each.change.kind] += each.tensors
    recipe = recipe_of(pair.new.manifest, pair.old.manifest)
    return CheckpointDiff(
        pair.path, pair.before, pair.state, len(tensors), dict(counts), tuple(rows), recipe
    )


def measured(
    pair: Pair, workers: int, workspace: Workspace | None = None, with_ranks: bool = False
) -> list[Measured]:
    """Return every tensor that changed; those that may be remote are fetched to ``workspace``."""
    changes = compare_tensors(pair.old.manifest, pair.new.manifest)
    products = product_changes(pair, changes)
    covered = {each.name for product in products for each in product.changes}
    changes = [change for change in changes if change.name not in covered]
    if workspace:
        fetch(workspace, changes, [tensor for each in products for tensor in each.tensors])
    figures = measure(changes, pair.old.content, pair.new.content, workers, with_ranks)
    found = [
        Measured(change, update_of(change, workspace.store) if workspace else None, sums, rank)
        for change, (sums, rank) in zip(changes, figures, strict=True)
        # Equal bytes that were cut into other chunks.
        if not (change.kind == "changed" and sums and not sums.changed)
    ]
    found += [
        Measured(each.change, each.update, compare_products(each, pair), tensors=len(each.changes))
        for each in products
    ]
    return sorted(found, key=lambda each: natural_order(each.change.name))


def unmeasured(pair: Pair) -> list[Measured]:
    """Return the same from the manifests alone, where the objects cannot be fetched."""
    return [Measured(each) for each in compare_tensors(pair.old.manifest, pair.new.manifest)]


def rows_of(found: Sequence[Measured], by_tensor: bool, order: Order = "name") -> list[Row]:
    """Return a row for each tensor, or for each group of tensors that changed alike."""
    groups = (
        [(each.change.name, [each]) for each in found]
        if by_tensor
        else by_pattern(found, lambda each: each.change.name, _likeness)
    )
    rows = [_row(pattern, group) for pattern, group in groups]
    return sorted(rows, key=_KEYS[order])


_KEYS = {
    "name": lambda row: natural_order(row.name),
    "change": lambda row: -((row.sums and row.sums.relative) or 0.0),
    "size": lambda row: -row.size,
}


def _likeness(each: Measured) -> tuple[object, ...]:
    change = each.change
    dtypes = tuple(t.dtype if t else None for t in (change.old, change.new))
    was = pattern_of(change.old.name) if change.old and change.kind == "renamed" else None
    return change.kind, each.update, dtypes, was


def _row(pattern: str, group: Sequence[Measured]) -> Row:
    first = group[0].change
    versions = [[t for t in (each.change.old, each.change.new) if t] for each in group]
    shapes = {tuple(dict.fromkeys(t.shape for t in pair)) for pair in versions}
    before = first.old.name if first.old else first.name
    alone = len(group) == 1
    sums = [each.sums for each in group if each.sums]
    return Row(
        name=first.name if alone else pattern,
        before=before if alone else pattern_of(before),
        tensors=len(group),
        kind=first.kind,
        update=group[0].update,
        dtypes=tuple(dict.fromkeys(t.dtype for t in versions[0])),
        shapes=shapes.pop() if len(shapes) == 1 else None,
        size=sum(each.change.tensor.size for each in group),
        sums=reduce(add, sums) if sums else None,
        rank=group[0].rank if alone else None,
    )
