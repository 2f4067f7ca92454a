"""The contract of merge strategies: the same bits in any order, slicing and number of threads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from git_theta.merge.compute.tensor import merge_by, merge_tensor, run_prepass
from git_theta.merge.kernels.device import CPU_SLICE
from git_theta.merge.kernels.lora import LoraFactors
from git_theta.merge.kernels.prepass import SingleTensor
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.rules.binding import bind
from git_theta.merge.rules.rules import Method
from git_theta.merge.rules.strategy import Strategy, Target

NAMES = ("main", "dev", "next")


class _Suite:
    """The contract of strategies of every kind."""

    hyperparameters: Mapping[str, Any] = {}

    @pytest.fixture
    def strategy(self) -> Strategy:
        """Return the strategy to test."""
        raise NotImplementedError("give your subclass a fixture called strategy")

    def method(self, strategy: Strategy, number: int) -> Method:
        """Return the strategy with its hyperparameters for ``number`` contributors."""
        required = (p.name for p in strategy.hyperparameters if p.required)
        given = {name: self.hyperparameters[name] for name in required}
        return Method(strategy, bind(strategy, given, NAMES[:number]))

    def test_it_is_documented(self, strategy: Strategy) -> None:
        """``git theta strategies`` shows it."""
        assert strategy.summary.endswith(".")
        assert all(known.doc for known in strategy.hyperparameters)

    def test_its_hyperparameters_fit_a_rule_and_a_recipe(self, strategy: Strategy) -> None:
        """A recipe is JSON, and its values are read back."""
        assert {p.name for p in strategy.hyperparameters}.isdisjoint({"match", "path", "strategy"})
        number = numbers_of_contributors(strategy)[-1]
        values = self.method(strategy, number).values
        assert json.loads(json.dumps(values)) == values
        assert bind(strategy, values, NAMES[:number]) == values


class StrategySuite(_Suite):
    """Conformance of a strategy of tensors; a subclass has a fixture ``strategy``.

    ``hyperparameters`` gives values to those without a default.
    """

    def test_it_keeps_shape_and_dtype_and_is_finite(self, strategy: Strategy) -> None:
        """For any number of contributors that it takes."""
        for number in numbers_of_contributors(strategy):
            given = inputs(strategy, number)
            merged = _merge(self.method(strategy, number), given)
            assert (merged.shape, merged.dtype) == (given.shape, torch.float32)
            assert bool(merged.isfinite().all())

    def test_it_does_not_write_to_its_inputs(self, strategy: Strategy) -> None:
        """An input may be the stored tensor."""
        number = numbers_of_contributors(strategy)[-1]
        given, before = inputs(strategy, number), inputs(strategy, number)
        _merge(self.method(strategy, number), given)
        for now, then in zip(_tensors(given), _tensors(before), strict=True):
            assert same_bits(now, then)

    def test_the_order_of_its_contributors_changes_no_bit(self, strategy: Strategy) -> None:
        """Or ``ordered=True``: it means something."""
        if strategy.ordered:
            pytest.skip("the order means something")
        number = numbers_of_contributors(strategy)[-1]
        given, chosen = inputs(strategy, number), self.method(strategy, number)
        backwards = given.permuted(range(number)[::-1])
        assert same_bits(_merge(chosen, backwards), _merge(chosen, given))

    def test_slicing_changes_no_bit(self, strategy: Strategy) -> None:
        """``slicing`` says where a tensor may be cut."""
        number = numbers_of_contributors(strategy)[-1]
        given, chosen = inputs(strategy, number, (300, 500)), self.method(strategy, number)
        sliced = _merge(chosen, replace(given, slice_elements=1 << 16))
        assert same_bits(sliced, _merge(chosen, replace(given, slice_elements=1 << 20)))

    def test_the_number_of_threads_changes_no_bit(self, strategy: Strategy) -> None:
        """Ours and torch's; or ``reproducible=False``."""
        if not strategy.reproducible:
            pytest.skip("it says so")
        number = numbers_of_contributors(strategy)[-1]
        given, chosen = inputs(strategy, number, (600, 500)), self.method(strategy, number)
        assert given.count > CPU_SLICE, "or there is one slice"
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            one = _merge(chosen, given)
            ours = _merge(chosen, replace(given, threads=3, slice_elements=1 << 16))
            torch.set_num_threads(3)
            torchs = _merge(chosen, given)
        finally:
            torch.set_num_threads(before)
        assert same_bits(one, ours)
        assert same_bits(one, torchs)


class FactorStrategySuite(_Suite):
    """Conformance of a strategy of LoRA updates, as ``StrategySuite``."""

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
    @pytest.mark.parametrize("has_base", [False, True])
    def test_factors_keep_their_shapes_and_dtype(
        self, strategy: Strategy, dtype: torch.dtype, has_base: bool
    ) -> None:
        """LoRA updates: A ``[rank, in]``, B ``[out, rank]``, of the rank that was planned."""
        *given, base = _pairs([2, 3, 4], dtype)
        merged = self._join(strategy, given, base if has_base else None, 2.0)
        assert merged.down.shape == (merged.rank, 7)
        assert merged.up.shape == (9, merged.rank)
        assert (merged.down.dtype, merged.up.dtype, merged.scale) == (dtype, dtype, 2.0)
        assert bool(merged.down.isfinite().all() and merged.up.isfinite().all())

    def test_the_order_of_pairs_of_factors_changes_no_bit(self, strategy: Strategy) -> None:
        """As for tensors."""
        given = _pairs([2, 2, 2])
        one, other = (self._join(strategy, order, None, 1.0) for order in (given, given[::-1]))
        assert same_bits(one.down, other.down)
        assert same_bits(one.up, other.up)

    def test_factors_are_not_written_to(self, strategy: Strategy) -> None:
        """As for tensors."""
        given, before = _pairs([2, 3]), _pairs([2, 3])
        self._join(strategy, given, None, 1.0)
        for pair, old in zip(given, before, strict=True):
            assert same_bits(pair.down, old.down)
            assert same_bits(pair.up, old.up)

    def _join(
        self,
        strategy: Strategy,
        given: Sequence[LoraFactors],
        base: LoraFactors | None,
        scale: float,
    ) -> LoraFactors:
        values = self.method(strategy, len(given)).values
        rank = strategy.rank_of(values, [pair.rank for pair in given], base.rank if base else 0)
        available: dict[str, Any] = {"factors": given, "base": base, "target": Target(rank, scale)}
        if "merge" in strategy.inputs:
            available["merge"] = merge_by(values, "layer.weight")
        merged: LoraFactors = strategy(available, values)
        assert merged.rank == rank
        return merged


class PromptStrategySuite(_Suite):
    """Conformance of a strategy of soft prompts, as ``StrategySuite``."""

    def test_a_prompt_has_as_many_tokens_as_all_have(self, strategy: Strategy) -> None:
        """Soft prompts ``[parts, tokens, width]``."""
        given = [*gaussian(1, (2, 3, 8), 1), *gaussian(2, (2, 5, 8), 1)]
        merged: Tensor = strategy({"prompts": given}, self.method(strategy, 2).values)
        assert merged.shape == (2, 8, 8)
        assert merged.dtype == torch.float32


def numbers_of_contributors(strategy: Strategy) -> range:
    """Return the numbers of contributors to try, at least one."""
    fewest, most = strategy.contributors
    return range(fewest, (most or max(3, fewest)) + 1)


def gaussian(seed: int, shape: Sequence[int], number: int) -> list[Tensor]:
    """Return ``number`` float32 tensors, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tuple(shape), generator=generator) for _ in range(number)]


def inputs(strategy: Strategy, number: int, shape: Sequence[int] = (150, 12)) -> Inputs:
    """Return contributors, a base, and the statistic that the strategy uses, if any."""
    *contributors, base = gaussian(1, shape, number + 1)
    statistics: list[Tensor] = []
    if strategy.statistic == "fisher":
        statistics = [tensor.abs() for tensor in gaussian(2, shape, number)]
    if strategy.statistic == "gram":
        statistics = [x.T @ x for x in gaussian(2, (50, shape[-1]), number)]
    return Inputs.of("layer.weight", contributors, base, statistics)


def _tensors(given: Inputs) -> list[Tensor]:
    assert given.base is not None
    return [given.base, *given.contributors, *given.statistics]


def _merge(method: Method, given: Inputs) -> Tensor:
    prepass = run_prepass(method, SingleTensor(given))
    return merge_tensor(method, given, prepass.get(given.name))


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Return whether float32 tensors are equal bit by bit."""
    return first.shape == second.shape and torch.equal(
        first.view(torch.int32), second.view(torch.int32)
    )


def _pairs(ranks: Sequence[int], dtype: torch.dtype = torch.float32) -> list[LoraFactors]:
    return [_pair(number, rank, dtype) for number, rank in enumerate(ranks)]


def _pair(seed: int, rank: int, dtype: torch.dtype) -> LoraFactors:
    (down,), (up,) = gaussian(seed, (rank, 7), 1), gaussian(seed + 50, (9, rank), 1)
    return LoraFactors(down.to(dtype), up.to(dtype), 0.5)
