"""Every registered strategy keeps to the contract that third parties are given."""

from __future__ import annotations

import pytest
import torch

from git_theta.core import registry
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.strategy import Strategy
from git_theta.testing.strategies import (
    FactorStrategySuite,
    PromptStrategySuite,
    StrategySuite,
    gaussian,
)

ALL = [strategy_named(name) for name in registry.names("strategies")]


def of_kind(kind: str) -> list[object]:
    return [pytest.param(each, id=each.name) for each in ALL if each.kind == kind]


class TestStrategies(StrategySuite):
    hyperparameters = {"side": "ours"}  # noqa: RUF012 - nobody writes to it

    @pytest.fixture(params=of_kind("tensors"))
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        return request.param


class TestFactorStrategies(FactorStrategySuite):
    @pytest.fixture(params=of_kind("factors"))
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        return request.param


class TestPromptStrategies(PromptStrategySuite):
    @pytest.fixture(params=of_kind("prompts"))
    def strategy(self, request: pytest.FixtureRequest) -> Strategy:
        return request.param


def test_concat_keeps_every_token_of_every_prompt() -> None:
    given = [*gaussian(1, (2, 3, 8), 1), *gaussian(2, (2, 5, 8), 1)]
    merged = strategy_named("concat")({"prompts": given}, {"order": (0.0, 0.0)})
    for part in range(2):
        tokens = torch.cat([prompt[part] for prompt in given])
        assert sorted(merged[part].tolist()) == sorted(tokens.tolist())
