"""What every registered merge strategy keeps to, third-party ones included, with its defaults."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from git_theta.core import registry
from git_theta.merge.compute.tensor import merge_tensor, run_prepass
from git_theta.merge.kernels.device import CPU_SLICE
from git_theta.merge.kernels.lora import LoraFactors
from git_theta.merge.kernels.prepass import SingleTensor
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.rules import Method
from git_theta.merge.rules.strategy import Strategy, Target

NAMES = ("main", "dev", "next")
# What a hyperparameter without default is set to.
REQUIRED = {"side": "ours"}


ALL = [strategy_named(name) for name in registry.names("strategies")]


def of_kind(kind: str) -> list[object]:
    return [pytest.param(each, id=each.name) for each in ALL if each.kind == kind]


@pytest.fixture(params=of_kind("tensors"))
def strategy(request: pytest.FixtureRequest) -> Strategy:
    """One that merges tensors."""
    return request.param


@pytest.fixture(params=of_kind("factors"))
def of_factors(request: pytest.FixtureRequest) -> Strategy:
    """One that merges pairs of LoRA factors."""
    return request.param


@pytest.fixture(params=of_kind("prompts"))
def of_prompts(request: pytest.FixtureRequest) -> Strategy:
    """One that merges soft prompts."""
    return request.param


def method(strategy: Strategy, number: int) -> Method:
    given = {p.name: REQUIRED[p.name] for p in strategy.hyperparameters if p.required}
    return Method(strategy, strategy.bind(given, NAMES[:number]))


def numbers_of_contributors(strategy: Strategy) -> range:
    fewest, most = strategy.contributors
    return range(fewest, (most or 3) + 1)


def gaussian(seed: int, shape: Sequence[int], number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tuple(shape), generator=generator) for _ in range(number)]


def inputs(strategy: Strategy, number: int, shape: Sequence[int] = (150, 12)) -> Inputs:
    """Contributors, a base, and the statistic that the strategy uses, if any."""
    *contributors, base = gaussian(1, shape, number + 1)
    statistics: list[Tensor] = []
    if strategy.statistic == "fisher":
        statistics = [tensor.abs() for tensor in gaussian(2, shape, number)]
    if strategy.statistic == "gram":
        statistics = [x.T @ x for x in gaussian(2, (50, shape[-1]), number)]
    return Inputs.of("layer.weight", contributors, base, statistics)


def merge(method: Method, given: Inputs) -> Tensor:
    prepass = run_prepass(method, SingleTensor(given))
    return merge_tensor(method, given, prepass.get(given.name))


def same_bits(first: Tensor, second: Tensor) -> bool:
    return first.shape == second.shape and torch.equal(
        first.view(torch.int32), second.view(torch.int32)
    )


@pytest.mark.parametrize("strategy", ALL, ids=lambda each: each.name)
def test_it_is_documented(strategy: Strategy) -> None:
    assert strategy.summary.endswith(".")
    assert all(known.doc for known in strategy.hyperparameters)


@pytest.mark.parametrize("strategy", ALL, ids=lambda each: each.name)
def test_its_hyperparameters_fit_a_rule_and_a_recipe(strategy: Strategy) -> None:
    assert {p.name for p in strategy.hyperparameters}.isdisjoint({"match", "path", "strategy"})
    number = numbers_of_contributors(strategy)[-1]
    values = method(strategy, number).values
    assert json.loads(json.dumps(values)) == values
    assert strategy.bind(values, NAMES[:number]) == values


def test_it_keeps_shape_and_dtype_and_is_finite(strategy: Strategy) -> None:
    for number in numbers_of_contributors(strategy):
        given = inputs(strategy, number)
        merged = merge(method(strategy, number), given)
        assert (merged.shape, merged.dtype) == (given.shape, torch.float32)
        assert bool(merged.isfinite().all())


def test_it_does_not_write_to_its_inputs(strategy: Strategy) -> None:
    number = numbers_of_contributors(strategy)[-1]
    given, before = inputs(strategy, number), inputs(strategy, number)
    merge(method(strategy, number), given)
    assert given.base is not None
    assert before.base is not None
    pairs = [
        (given.base, before.base),
        *zip(given.contributors, before.contributors, strict=True),
        *zip(given.statistics, before.statistics, strict=True),
    ]
    assert all(same_bits(*pair) for pair in pairs)


def test_the_order_of_its_contributors_changes_no_bit(strategy: Strategy) -> None:
    if strategy.ordered:
        pytest.skip("the order means something")
    number = numbers_of_contributors(strategy)[-1]
    given = inputs(strategy, number)
    backwards = given.permuted(range(number)[::-1])
    chosen = method(strategy, number)
    assert same_bits(merge(chosen, backwards), merge(chosen, given))


def test_slicing_changes_no_bit(strategy: Strategy) -> None:
    number = numbers_of_contributors(strategy)[-1]
    given = inputs(strategy, number, (300, 500))
    chosen = method(strategy, number)
    sliced = merge(chosen, replace(given, slice_elements=1 << 16))
    assert same_bits(sliced, merge(chosen, replace(given, slice_elements=1 << 20)))


def test_the_number_of_threads_changes_no_bit(strategy: Strategy) -> None:
    if not strategy.reproducible:
        pytest.skip("says so")
    number = numbers_of_contributors(strategy)[-1]
    given, chosen = inputs(strategy, number, (600, 500)), method(strategy, number)
    assert given.count > CPU_SLICE, "or there is one slice"
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = merge(chosen, given)
        ours = merge(chosen, replace(given, threads=3, slice_elements=1 << 16))
        torch.set_num_threads(3)
        torchs = merge(chosen, given)
    finally:
        torch.set_num_threads(before)
    assert same_bits(one, ours)
    assert same_bits(one, torchs)


# --- pairs of LoRA factors ------------------------------------------------------------------------


def pairs(ranks: Sequence[int], dtype: torch.dtype = torch.float32) -> list[LoraFactors]:
    return [
        LoraFactors(
            *(t.to(dtype) for t in (*gaussian(n, (r, 7), 1), *gaussian(n + 50, (9, r), 1))), 0.5
        )
        for n, r in enumerate(ranks)
    ]


def join(
    chosen: Strategy, given: Sequence[LoraFactors], base: LoraFactors | None, scale: float
) -> LoraFactors:
    values = method(chosen, len(given)).values
    rank = chosen.rank_of(values, [pair.rank for pair in given], base.rank if base else 0)
    available = {"factors": given, "base": base, "target": Target(rank, scale)}
    merged: LoraFactors = chosen(available, values)
    assert merged.rank == rank
    return merged


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("has_base", [False, True])
def test_factors_keep_their_shapes_and_dtype(
    of_factors: Strategy, dtype: torch.dtype, has_base: bool
) -> None:
    *given, base = pairs([2, 3, 4], dtype)
    merged = join(of_factors, given, base if has_base else None, 2.0)
    assert merged.down.shape == (merged.rank, 7)
    assert merged.up.shape == (9, merged.rank)
    assert (merged.down.dtype, merged.up.dtype, merged.scale) == (dtype, dtype, 2.0)
    assert bool(merged.down.isfinite().all() and merged.up.isfinite().all())


def test_the_order_of_pairs_changes_no_bit(of_factors: Strategy) -> None:
    given = pairs([2, 2, 2])
    one, other = (join(of_factors, order, None, 1.0) for order in (given, given[::-1]))
    assert same_bits(one.down, other.down)
    assert same_bits(one.up, other.up)


def test_factors_are_not_written_to(of_factors: Strategy) -> None:
    given, before = pairs([2, 3]), pairs([2, 3])
    join(of_factors, given, None, 1.0)
    for pair, old in zip(given, before, strict=True):
        assert same_bits(pair.down, old.down)
        assert same_bits(pair.up, old.up)


# --- soft prompts ---------------------------------------------------------------------------------


def test_every_token_of_every_prompt_is_kept(of_prompts: Strategy) -> None:
    given = [*gaussian(1, (2, 3, 8), 1), *gaussian(2, (2, 5, 8), 1)]
    merged: Tensor = of_prompts({"prompts": given}, method(of_prompts, 2).values)
    assert merged.shape == (2, 8, 8)
    for part in range(2):
        tokens = torch.cat([prompt[part] for prompt in given])
        assert sorted(merged[part].tolist()) == sorted(tokens.tolist())
