"""The task vector of one checkpoint: what a version added to the common ancestor's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from git_theta.adapters import Fields
from git_theta.commands.diff.changes import Tensor, tensors_of
from git_theta.commands.diff.floats import widen
from git_theta.commands.diff.products import Factors, Pair, pairs_of, read_factors
from git_theta.commands.diff.segments import Content
from git_theta.commands.similar.sketches import ProductSketch, sketch_matrix
from git_theta.commands.task_vectors import are_comparable, gram
from git_theta.core.dtypes import dtype, element_count
from git_theta.manifest import Chunk, Manifest

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Version:
    """A checkpoint in one revision, with the configuration beside it where it is an adapter."""

    manifest: Manifest | None
    fields: Fields | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs: tensors old and new, and products of factors old (of the base) and new."""

    tensors: dict[str, tuple[Tensor, Tensor]]
    old: dict[str, Pair]
    new: dict[str, Pair]

    def chunks(self) -> Iterator[Chunk]:
        """Yield every chunk that is read."""
        for pair in self.tensors.values():
            yield from (chunk for tensor in pair for chunk in tensor.chunks)
        for factors in (*self.old.values(), *self.new.values()):
            yield from (*factors.down.chunks, *factors.up.chunks)


def changes_of(base: Version, version: Version) -> Changes:
    """Return what a version added to the base: to tensors of floats that both have of one shape.

    An adapter adds the products of its factors, to a base that need not have it.
    """
    before, after = _owners(base.manifest), _owners(version.manifest)
    old, new = pairs_of(before.values(), base.fields), pairs_of(after.values(), version.fields)
    alike = {name for name in old.keys() & new.keys() if _key(old[name]) == _key(new[name])}
    factors = {each for pair in (*old.values(), *new.values()) for each in pair.names}
    tensors = {
        name: (before[name], tensor)
        for name, tensor in after.items()
        if name in before
        and name not in factors
        and tensor.content != before[name].content
        and _is_vector(before[name], tensor)
    }
    return Changes(
        tensors,
        {name: pair for name, pair in old.items() if name not in alike},
        {name: pair for name, pair in new.items() if name not in alike},
    )


def sketch(path: str, changes: Changes, content: Content) -> Doubles:
    """Return the sketch of all changes; one tensor of both versions is in memory at a time."""
    products = ProductSketch()
    for sign, pairs in ((1.0, changes.new), (-1.0, changes.old)):
        for name, pair in pairs.items():
            products.add(f"{path}\0{name}", read_factors(pair, content), sign)
    total = products.total()
    for name, (old, new) in changes.tensors.items():
        total += sketch_matrix(f"{path}\0{name}", _difference(old, new, content))
    return total


def inner_products(versions: Sequence[Changes], content: Content) -> Doubles:
    """Return the exact inner products (n, n) of the changes of versions of one checkpoint."""
    total = np.zeros((len(versions), len(versions)))
    for name in dict.fromkeys(name for each in versions for name in each.tensors):
        holders = [at for at, each in enumerate(versions) if name in each.tensors]
        base = versions[holders[0]].tensors[name][0]
        tensors = [versions[at].tensors[name][1] for at in holders]
        total[np.ix_(holders, holders)] += gram(base, tensors, content)
    for name in dict.fromkeys(name for each in versions for name in (*each.new, *each.old)):
        total += _product_gram(name, versions, content)
    return total


def _product_gram(name: str, versions: Sequence[Changes], content: Content) -> Doubles:
    """Return inner products of what versions added to one module, from their factors.

    <B A, D C> is the sum of (D^T B) times (C A^T), element by element.
    """
    found = [(at, added(name, each, content)) for at, each in enumerate(versions)]
    products = [(at, each) for at, each in found if each]
    total = np.zeros((len(versions), len(versions)))
    shapes = {(len(each.up), each.down.shape[1]) for _, each in products}
    for shape in shapes:  # those of another shape have nothing in common
        group = [(at, each) for at, each in products if (len(each.up), each.down.shape[1]) == shape]
        for row, one in group:
            for column, other in group:
                if column >= row:
                    value = np.sum((one.up.T @ other.up) * (one.down @ other.down.T))
                    total[row, column] = total[column, row] = value
    return total


def added(name: str, changes: Changes, content: Content) -> Factors | None:
    """Return the factors of the version's product of a module less the base's."""
    signed = [(1.0, changes.new.get(name)), (-1.0, changes.old.get(name))]
    read = [(sign, read_factors(pair, content)) for sign, pair in signed if pair]
    if not read or len({(len(f.up), f.down.shape[1]) for _, f in read}) > 1:
        return None
    ups = [sign * factors.up for sign, factors in read]
    return Factors(np.hstack(ups), np.vstack([factors.down for _, factors in read]))


def _owners(manifest: Manifest | None) -> dict[str, Tensor]:
    """Return the tensors that own bytes: tied ones count once."""
    found = tensors_of(manifest)
    return {entry.name: found[entry.name] for entry in manifest.tensors} if manifest else {}


def _is_vector(old: Tensor, new: Tensor) -> bool:
    is_float = all(dtype(each.dtype).kind == "float" for each in (old, new))
    return is_float and are_comparable((old, new)) and element_count(new.shape) > 0


def _key(pair: Pair) -> tuple[object, ...]:
    return (pair.down.content, pair.up.content, pair.scale)


def _difference(old: Tensor, new: Tensor, content: Content) -> NDArray[np.float32]:
    before, after = (
        widen(np.concatenate(content.read(each.chunks)), each.dtype) for each in (old, new)
    )
    with np.errstate(all="ignore"):
        change = (after - before).astype(np.float32)
    change[~np.isfinite(change)] = 0.0
    return change.reshape(new.shape[0] if len(new.shape) > 1 else 1, -1)
