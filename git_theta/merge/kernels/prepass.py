"""Quantities of a whole model, or of a whole tensor, from a stream of slices.

Memory is a slice and the results. Each is exact or exactly rounded (``math.fsum``), so that no
order of parameters, slicing, thread count or machine changes a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations_with_replacement
from typing import TYPE_CHECKING, Protocol, TypeVar

from git_theta.core.parallel import batches
from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.reductions import dots, row_dots
from git_theta.merge.kernels.slices import Inputs, Piece, Slice, Slicing, each

if TYPE_CHECKING:
    from torch import Tensor

R = TypeVar("R")
# Elements: enough for every thread to have some slices.
_BATCH = 1 << 22

Vectors = Callable[[Slice], Sequence["Tensor"]]


class Model(Protocol):
    """The parameters that one method merges, as a prepass reads them: one by one, in passes."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the parameters."""
        ...

    @property
    def count(self) -> int:
        """Number of elements of all of them."""
        ...

    @property
    def unchanged(self) -> int:
        """Number of further elements, which no contributor changed: their task vectors are 0."""
        ...

    @property
    def wide(self) -> bool:
        """Whether any tensor is float64."""
        ...

    @property
    def threads(self) -> int:
        """Number of slices to work on at once."""
        ...

    def stream(self, names: Iterable[str]) -> Iterator[Inputs]:
        """Yield the inputs of these parameters, in this order."""
        ...


@dataclass(frozen=True)
class SingleTensor:
    """A model of one parameter."""

    inputs: Inputs

    @property
    def names(self) -> Sequence[str]:
        """Its name."""
        return (self.inputs.name,)

    @property
    def count(self) -> int:
        """Its number of elements."""
        return self.inputs.count

    @property
    def unchanged(self) -> int:
        """None: it is all that there is."""
        return 0

    @property
    def wide(self) -> bool:
        """Whether it is float64."""
        return self.inputs.dtype == torch.float64

    @property
    def threads(self) -> int:
        """Number of threads that have a slice to work on."""
        return self.inputs.workers

    def stream(self, names: Iterable[str]) -> Iterator[Inputs]:
        """Yield the inputs, once for each name."""
        return (self.inputs for _ in names)


def each_slice(
    model: Model,
    work: Callable[[Slice], R],
    names: Iterable[str] | None = None,
    slicing: Slicing = "element",
    starts: Container[int] | None = None,
) -> Iterator[R]:
    """Yield ``work(slice)`` for every slice of the parameters ``names``, by default of all.

    In the order of the names and slices, on the model's threads. With ``starts``, only for the
    slices that start there.
    """
    chosen = model.stream(model.names if names is None else names)
    # Small parameters are worked on together; a large one is let go of before the next is loaded.
    for batch in batches(chosen, lambda inputs: inputs.count, _BATCH):
        pieces: Iterator[Piece] = chain.from_iterable(inputs.pieces(slicing) for inputs in batch)
        if starts is not None:
            pieces = (piece for piece in pieces if piece.start in starts)
        yield from each(pieces, work, model.threads)
        del pieces
        batch.clear()


def task_vectors(piece: Slice) -> list[Tensor]:
    """Return a slice's part of the task vectors."""
    return piece.deltas


def gram(model: Model, vectors: Vectors) -> Tensor:
    """Return the dot products of N model-long vectors: float64 ``[N, N, 1]``, on the CPU.

    ``vectors`` returns a slice's part of each.
    """
    found = grams(model, vectors, lambda _: "")
    return found.get("", torch.zeros(0, 0, 1, dtype=torch.float64))


def grams(model: Model, vectors: Vectors, group: Callable[[str], str]) -> dict[str, Tensor]:
    """Return ``gram`` for each group of parameters; ``group`` maps a name to its group."""
    sums = _sums(model, vectors, lambda n: combinations_with_replacement(range(n), 2), group)
    return {name: _symmetric(products) for name, products in sums.items()}


def _symmetric(products: dict[tuple[int, int], float]) -> Tensor:
    number = 1 + max(i for i, _ in products)
    matrix = torch.zeros(number, number, 1, dtype=torch.float64)
    for (i, j), value in products.items():
        matrix[i, j] = matrix[j, i] = value
    return matrix


def squared_norms(model: Model, vectors: Vectors) -> list[float]:
    """Return the squared L2 norm of each model-long vector."""
    sums = _sums(model, vectors, lambda n: ((i, i) for i in range(n)), lambda _: "")
    return list(sums.get("", {}).values())


def l1_norms(model: Model, vectors: Vectors, slicing: Slicing = "element") -> list[float]:
    """Return the L1 norm of each model-long vector; ``vectors`` returns a slice's part of each."""

    def work(piece: Slice) -> list[list[float]]:
        flat = [vector.reshape(-1) for vector in vectors(piece)]
        return [dots(vector, vector.sign()) for vector in flat]

    parts = zip(*each_slice(model, work, slicing=slicing), strict=True)
    return [math.fsum(chain.from_iterable(part)) for part in parts]


def _sums(
    model: Model,
    vectors: Vectors,
    pairs: Callable[[int], Iterable[tuple[int, int]]],
    group: Callable[[str], str],
) -> dict[str, dict[tuple[int, int], float]]:
    """Return the dot products of pairs of vectors, over each group of parameters."""

    def work(piece: Slice) -> tuple[str, dict[tuple[int, int], list[float]]]:
        found = vectors(piece)
        products = {(i, j): dots(found[i], found[j]) for i, j in pairs(len(found))}
        return group(piece.name), products

    partial: dict[str, dict[tuple[int, int], list[float]]] = {}
    for name, found in each_slice(model, work):
        sums = partial.setdefault(name, {})
        for pair, values in found.items():
            sums.setdefault(pair, []).extend(values)
    return {
        name: {pair: math.fsum(values) for pair, values in sums.items()}
        for name, sums in partial.items()
    }


def row_gram(vectors: Sequence[Tensor]) -> Tensor:
    """Return the dot products by row of N matrices ``[rows, width]``: float64 ``[N, N, rows]``."""
    number = len(vectors)
    products = torch.zeros(number, number, len(vectors[0]), dtype=torch.float64)
    for i, j in combinations_with_replacement(range(number), 2):
        products[i, j] = products[j, i] = row_dots(vectors[i], vectors[j]).cpu()
    return products
