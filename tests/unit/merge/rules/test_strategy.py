"""What is read from a strategy's signature, and the checks before any tensor is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import pytest
import torch
from torch import Tensor

from git_theta.core import registry
from git_theta.errors import MergeError
from git_theta.merge.rules.binding import bind
from git_theta.merge.rules.hyperparameters import Range
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.strategy import INPUTS, Strategy, strategy

BUILT_IN = registry.names("strategies")


@strategy(paper="arXiv:1234.56789", slicing="element")
def example(
    models: Sequence[Tensor],
    base: Tensor,
    fisher: Sequence[Tensor] | None = None,
    *,
    density: Annotated[float, Range(0, 1), "a share"] = 0.5,
    lambda_: float = 1.0,
) -> Tensor:
    """A summary.

    A definition.
    """
    return base + lambda_ * models[0] * density


def test_a_signature_says_all() -> None:
    assert example.name == "example"
    assert (example.summary, example.doc) == ("A summary.", "A summary.\n\nA definition.")
    assert example.inputs == ("models", "base", "fisher")
    assert example.needs_base({})
    assert example.statistic == "fisher"
    assert not example.needs_statistic()
    assert [parameter.name for parameter in example.hyperparameters] == ["density", "lambda"]
    assert example.scope({}) == "none"
    assert example.url == "https://arxiv.org/abs/1234.56789"


def test_a_strategy_is_called_with_what_it_names() -> None:
    available: dict[str, Any] = dict.fromkeys(INPUTS)
    available |= {"models": [torch.ones(2)], "base": torch.zeros(2)}
    values = bind(example, {"lambda": "3"}, ["main"])
    assert example(available, values).tolist() == [1.5, 1.5]


def test_an_unknown_input_is_refused_when_declared() -> None:
    with pytest.raises(TypeError, match="tensors is not an input; known ones: models, base"):

        @strategy()
        def wrong(tensors: Sequence[Tensor]) -> Tensor:
            return tensors[0]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_strategy_is_documented(name: str) -> None:
    found = strategy_named(name)
    assert found.name == name
    assert found.summary.endswith(".")
    assert found.doc.count("\n") >= (0 if name == "take" else 2), "a definition follows the summary"
    assert found.paper or name in ("take", "slerp")
    assert found.helps or "deltas" not in found.inputs


@pytest.mark.parametrize(
    ("name", "needs"),
    [("average", False), ("ties", True), ("karcher", False), ("model_stock", True)],
)
def test_what_needs_a_base_says_so(name: str, needs: bool) -> None:
    found = strategy_named(name)
    assert found.needs_base(bind(found, {}, ["main", "dev"])) is needs


def test_some_values_make_a_base_necessary() -> None:
    karcher, take = strategy_named("karcher"), strategy_named("take")
    assert karcher.needs_base(bind(karcher, {"task_vectors": "true"}, ["main", "dev"]))
    assert take.needs_base(bind(take, {"side": "base"}, ["main", "dev"]))
    assert not take.needs_base(bind(take, {"side": "ours"}, ["main", "dev"]))


def test_statistics_are_named() -> None:
    assert strategy_named("fisher").statistic == "fisher"
    assert strategy_named("fisher").needs_statistic()
    assert strategy_named("regmean").statistic == "gram"
    assert strategy_named("ties").statistic is None
    assert not strategy_named("regmean").reproducible


@pytest.mark.parametrize(
    ("name", "given", "contributors", "says"),
    [
        ("slerp", {}, 3, "slerp merges exactly 2 contributors, not 3"),
        ("model_stock", {}, 1, "model_stock merges at least 2 contributors, not 1"),
        ("average", {"weight": [1, -1]}, 2, "the weights add up to 0"),
        ("ties", {"weight": [1, -1]}, 2, "use task_arithmetic"),
        ("ties", {"weight": 0}, 2, "the weights add up to 0"),
        ("dare_linear", {"density": 1.5}, 2, "0 to 1"),
        ("della", {"density": 0.9}, 2, "outside 0 to 1"),
        ("della", {"density": 0.5, "weight": 0}, 2, "the weights add up to 0"),
        ("della_linear", {"density": 0.1}, 2, "outside 0 to 1"),
        ("model_stock", {"filter_wise": True, "scope": "model"}, 2, "cannot be combined"),
        ("take", {}, 2, "side is missing"),
        ("ties", {"t": 1}, 2, "ties has no hyperparameter 't'"),
    ],
)
def test_what_cannot_be_merged_is_refused_early(
    name: str, given: dict[str, Any], contributors: int, says: str
) -> None:
    with pytest.raises(MergeError) as caught:
        bind(strategy_named(name), given, [f"branch-{n}" for n in range(contributors)])
    assert says in str(caught.value)


def test_an_unknown_strategy_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(MergeError, match=r"did you mean average\? known ones: take, average"):
        strategy_named("averge")


def test_a_plug_in_that_is_no_strategy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BUILTIN["strategies"], "bad", "math:sqrt")
    with pytest.raises(MergeError, match="decorate it"):
        strategy_named("bad")


def test_two_names_may_mean_one_strategy() -> None:
    assert strategy_named("linear").function is strategy_named("average").function
    assert isinstance(strategy_named("linear"), Strategy)
