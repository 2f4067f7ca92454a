"""Merging in one call, and tensors on which float32 arithmetic is exact."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from git_theta.merge.compute.tensor import merge_tensor, run_prepass
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.rules.rules import Method, parse_rule

NAMES = ("main", "dev", "next", "last", "more")


@dataclass(frozen=True)
class Parameters:
    """A model in memory."""

    inputs: Sequence[Inputs]

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


def method(text: str, number: int) -> Method:
    """The method that a rule's right side ``text`` means for ``number`` contributors."""
    return parse_rule(f"*={text}").bind(NAMES[:number])


def merge(
    text: str,
    contributors: Sequence[Tensor],
    base: Tensor | None = None,
    statistics: Sequence[Tensor] = (),
    **options: object,
) -> Tensor:
    """Merge one tensor that is the whole model, as ``text`` says: ``ties:density=0.5``."""
    inputs = replace(Inputs.of("w", contributors, base, statistics), **options)
    return merge_model(text, [inputs])["w"]


def merge_model(text: str, model: Sequence[Inputs]) -> dict[str, Tensor]:
    """Merge every parameter of a model."""
    chosen = method(text, len(model[0].contributors))
    found = run_prepass(chosen, Parameters(model))
    return {inputs.name: merge_tensor(chosen, inputs, found.get(inputs.name)) for inputs in model}


def grid(
    seed: int, shape: Sequence[int], number: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    """Small multiples of 1/8: sums and products of a few are exact, and many are equal."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randint(-16, 17, tuple(shape), generator=generator).to(dtype) / 8
        for _ in range(number)
    ]
