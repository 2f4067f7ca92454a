"""Quantities of a whole model, or of a whole tensor, from a stream of slices.

Memory is a slice and the results. Each is exact or exactly rounded (``math.fsum``), so that no
order of parameters, slicing, thread count or machine changes a bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Protocol

import torch
from torch import Tensor

from git_theta.merge.arithmetic import dots, row_dots
from git_theta.merge.inputs import Inputs, Slice

Vectors = Callable[[Slice], Sequence[Tensor]]


class Model(Protocol):
    """The parameters that one method merges, as a survey sees them: again and again, one by one."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the parameters."""
        ...

    @property
    def count(self) -> int:
        """Number of elements of all of them."""
        ...

    @property
    def wide(self) -> bool:
        """Whether any tensor is float64."""
        ...

    def stream(self, names: Iterable[str]) -> Iterator[Inputs]:
        """The inputs of these parameters, in this order."""
        ...


@dataclass(frozen=True)
class Single:
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
    def wide(self) -> bool:
        """Whether it is float64."""
        return self.inputs.dtype == torch.float64

    def stream(self, names: Iterable[str]) -> Iterator[Inputs]:
        """Its inputs, once for each name."""
        return (self.inputs for _ in names)


def slices(model: Model, names: Iterable[str] | None = None) -> Iterator[tuple[str, Slice]]:
    """Every slice of the parameters called ``names`` (all of them), with its parameter's name."""
    for inputs in model.stream(model.names if names is None else names):
        for piece in inputs.slices():
            yield inputs.name, piece


def magnitudes(piece: Slice) -> list[Tensor]:
    """The task vectors without their signs."""
    return [delta.abs() for delta in piece.deltas]


def gram(model: Model, vectors: Vectors) -> Tensor:
    """The dot products of N model-long vectors with each other: float64 ``[N, N, 1]``, on the CPU.

    ``vectors`` gives a slice's part of each.
    """
    partial: dict[tuple[int, int], list[float]] = {}
    number = 0
    for _, piece in slices(model):
        found = vectors(piece)
        number = len(found)
        for i, j in combinations_with_replacement(range(number), 2):
            partial.setdefault((i, j), []).extend(dots(found[i], found[j]))
    products = torch.zeros(number, number, 1, dtype=torch.float64)
    for (i, j), values in partial.items():
        products[i, j] = products[j, i] = math.fsum(values)
    return products


def row_gram(vectors: Sequence[Tensor]) -> Tensor:
    """The same for each row of N matrices ``[rows, width]``: ``[N, N, rows]``."""
    number = len(vectors)
    products = torch.zeros(number, number, len(vectors[0]), dtype=torch.float64)
    for i, j in combinations_with_replacement(range(number), 2):
        products[i, j] = products[j, i] = row_dots(vectors[i], vectors[j]).cpu()
    return products


def squared_norms(model: Model, vectors: Vectors) -> list[float]:
    """The squared length of each model-long vector."""
    partial: dict[int, list[float]] = {}
    for _, piece in slices(model):
        for place, vector in enumerate(vectors(piece)):
            partial.setdefault(place, []).extend(dots(vector, vector))
    return [math.fsum(values) for values in partial.values()]
