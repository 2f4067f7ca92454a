"""Merging on a GPU, where there is one: the CPU's results, within float32 rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from git_theta.core import registry
from git_theta.errors import MergeError
from git_theta.merge.kernels.device import lane, slice_elements, threads_on
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.rules.registry import strategy_named
from tests.support.merging import merge_model

CUDA = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

NAMES = [
    name
    for name in registry.names("strategies")
    if name != "take" and strategy_named(name).kind == "tensors"
]


def gaussian(seed: int, shape: Sequence[int], number: int, scale: float) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tuple(shape), generator=generator) * scale for _ in range(number)]


def model(name: str, shape: Sequence[int], dtype: torch.dtype) -> list[Inputs]:
    """Three parameters, each with a base, two contributors, and statistics where wanted."""
    made = []
    for place in range(3):
        (base,) = gaussian(place, shape, 1, 0.02)
        sides = [(base + d).to(dtype) for d in gaussian(place + 9, shape, 2, 1e-3)]
        statistics: list[Tensor] = []
        if strategy_named(name).statistic == "fisher":
            statistics = [d.square() for d in gaussian(place + 19, shape, 2, 1.0)]
        if strategy_named(name).statistic == "gram":
            statistics = [x.T @ x for x in gaussian(place + 29, (50, shape[-1]), 2, 1.0)]
        made.append(Inputs.of(f"l.{place}.weight", sides, base.to(dtype), statistics))
    return made


def on_gpu(inputs: Sequence[Inputs], elements: int) -> list[Inputs]:
    return [
        replace(each, device=CUDA, threads=threads_on(CUDA, 8), slice_elements=elements)
        for each in inputs
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_gives_what_the_cpu_gives(name: str, dtype: torch.dtype) -> None:
    inputs = model(name, (700, 600), dtype)
    expected = merge_model(name, inputs)
    for elements in (1 << 16, 1 << 18, slice_elements(CUDA, 2)):
        found = merge_model(name, on_gpu(inputs, elements))
        for key, tensor in expected.items():
            assert (found[key].device.type, found[key].dtype) == ("cpu", dtype)
            if name == "arcee_fusion":
                # Its threshold lies among sums of float32: elements at it may fall on either side.
                assert (found[key] != tensor).float().mean() < 1e-4
            else:
                torch.testing.assert_close(found[key], tensor)


def test_slices_are_as_small_as_free_memory_asks() -> None:
    free, _ = torch.cuda.mem_get_info(CUDA)
    assert 0 < slice_elements(CUDA, 2) * 4 < free


def test_errors_of_a_slice_come_through() -> None:
    (one, *_) = model("average", (700, 600), torch.float32)
    one.contributors[1][600, 3] = torch.nan
    with pytest.raises(MergeError, match="has NaN in an input"):
        merge_model("average", on_gpu([one], 1 << 16))


def test_what_is_done_in_a_lane_is_done_when_it_is_left() -> None:
    with lane(CUDA):
        total = torch.ones(1 << 20, device=CUDA).cumsum(0)
    assert float(total[-1]) == 1 << 20
