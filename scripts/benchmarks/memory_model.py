"""A model in memory, for the benchmark of strategies and for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from git_theta.merge.kernels.slices import Inputs


@dataclass(frozen=True)
class MemoryModel:
    """The tensors of a model, as ``git_theta.merge.kernels.prepass`` reads them."""

    inputs: Sequence[Inputs]
    unchanged: int = 0

    @property
    def names(self) -> Sequence[str]:
        return [inputs.name for inputs in self.inputs]

    @property
    def count(self) -> int:
        return sum(inputs.count for inputs in self.inputs)

    @property
    def threads(self) -> int:
        return self.inputs[0].threads

    @property
    def wide(self) -> bool:
        return any(inputs.dtype == torch.float64 for inputs in self.inputs)

    def stream(self, names: Iterable[str]) -> Iterator[Inputs]:
        by_name = {inputs.name: inputs for inputs in self.inputs}
        return (by_name[name] for name in names)
