"""Merging in one call, and tensors on which float32 arithmetic is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.memory_model import MemoryModel
from git_theta.merge.compute.tensor import merge_tensor, run_prepass
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.rules.rules import Method, parse_rule

NAMES = ("main", "dev", "next", "last", "more")


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
    found = run_prepass(chosen, MemoryModel(model))
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
