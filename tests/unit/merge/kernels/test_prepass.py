"""Quantities of a whole model: norms, dot products, and their independence of all orders."""

from __future__ import annotations

import math

import torch

from benchmarks.memory_model import MemoryModel
from git_theta.merge.compute.tensor import merge_tensor, run_prepass
from git_theta.merge.kernels.prepass import SingleTensor, gram, row_gram, squared_norms
from git_theta.merge.kernels.slices import Inputs
from tests.support import reference_merge as reference
from tests.support.merging import grid, merge_model, method


def model(number: int = 3) -> list[Inputs]:
    return [
        Inputs.of(f"layer.{n}", grid(n, (4, n), 2), grid(n + 50, (4, n), 1)[0])
        for n in range(number)
    ]


def joined(inputs: list[Inputs], place: int) -> torch.Tensor:
    return torch.cat([i.contributors[place].flatten() for i in inputs])


def test_norms_and_products_are_those_of_the_model_as_one_vector() -> None:
    inputs = model()
    first, second = (joined(inputs, place).double() for place in (0, 1))
    products = gram(MemoryModel(inputs), lambda piece: piece.models)[..., 0]
    assert products.tolist() == [
        [float(first @ first), float(first @ second)],
        [float(first @ second), float(second @ second)],
    ]
    norms = squared_norms(MemoryModel(inputs), lambda piece: piece.models)
    assert norms == [float(first @ first), float(second @ second)]


def test_row_products_are_those_of_each_row() -> None:
    first, second = grid(1, (3, 5), 2)
    products = row_gram([first, second])
    assert products.shape == (2, 2, 3)
    assert torch.equal(products[0, 1], (first * second).sum(1).double())


def test_a_model_wide_ratio_is_the_one_of_the_model_as_one_vector() -> None:
    inputs = model()
    base = torch.cat([i.base.flatten() for i in inputs if i.base is not None])
    contributors = [joined(inputs, place).double().numpy() for place in (0, 1)]
    expected = reference.model_stock(contributors, base.double().numpy())

    merged = merge_model("model_stock:scope=model", inputs)

    found = torch.cat([merged[i.name].flatten() for i in inputs])
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_ties_over_the_model_trims_each_model_as_one_vector() -> None:
    inputs = model(5)
    base = torch.cat([i.base.flatten() for i in inputs if i.base is not None])
    contributors = [joined(inputs, place).double().numpy() for place in (0, 1)]
    expected = reference.ties(contributors, base.double().numpy(), [1, 1], 1, "0.3")

    merged = merge_model("ties:density=0.3", inputs[::-1])

    found = torch.cat([merged[i.name].flatten() for i in inputs])
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_only_what_is_model_wide_reads_the_model() -> None:
    class Untouchable(MemoryModel):
        def stream(self, names: object) -> object:
            raise AssertionError("read")

    for text in ("average", "ties:scope=tensor", "fisher:normalize=false", "model_stock"):
        assert run_prepass(method(text, 2), Untouchable(model())) == {}


def test_one_parameter_is_a_model() -> None:
    (inputs,) = model(1)
    single = SingleTensor(inputs)
    assert (single.names, single.count, single.wide) == (("layer.0",), 0, False)
    assert [found.name for found in single.stream(["layer.0"])] == ["layer.0"]


def test_sums_are_exact_in_any_order() -> None:
    """Terms that cancel but for the smallest: only exact summation gets them in every order."""
    tensors = [torch.tensor([2.0**40]), torch.tensor([1.0]), torch.tensor([2.0**40])]
    signs = [1.0, 1.0, -1.0]
    inputs = [
        Inputs(f"p{n}", [tensor, torch.tensor([sign])], None, ("", ""))
        for n, (tensor, sign) in enumerate(zip(tensors, signs, strict=True))
    ]
    for order in (inputs, inputs[::-1], [inputs[0], inputs[2], inputs[1]]):
        products = gram(MemoryModel(order), lambda piece: piece.models)
        assert math.isclose(float(products[0, 1, 0]), 1.0)


def test_a_strategy_merges_a_parameter_without_elements() -> None:
    inputs = Inputs.of("w", [torch.empty(0, 3), torch.empty(0, 3)], torch.empty(0, 3))
    assert merge_tensor(method("sce", 2), inputs).shape == (0, 3)
