"""Strategies on state dicts in memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import git_theta
from git_theta import errors
from git_theta.core import registry
from git_theta.git import Repository
from git_theta.merge.rules.registry import strategy_named
from git_theta.testing.strategies import gaussian
from tests.support.merges import Merger

NAMES = ("weight", "bias")


def _states(number: int) -> list[dict[str, Tensor]]:
    tensors = [*zip(gaussian(1, (40, 12), number), gaussian(2, (40,), number), strict=True)]
    return [dict(zip(NAMES, pair, strict=True)) for pair in tensors]


def test_average_is_the_weighted_mean() -> None:
    first, second = _states(2)
    merged = git_theta.merge_state_dicts(None, [first, second], "average", weight=[1, 3])
    assert list(merged) == list(NAMES)
    for name in NAMES:
        torch.testing.assert_close(merged[name], (first[name] + 3 * second[name]) / 4)


def test_contributors_of_a_mapping_have_names() -> None:
    first, second = _states(2)
    named = {"math": first, "code": second}
    merged = git_theta.merge_state_dicts(None, named, "average", weight={"math": 3, "code": 1})
    torch.testing.assert_close(merged["bias"], (3 * first["bias"] + second["bias"]) / 4)
    taken = git_theta.merge_state_dicts(None, named, "take", side="code")
    assert all(torch.equal(taken[name], second[name]) for name in NAMES)
    assert all(taken[name] is not second[name] for name in NAMES)


def test_task_vectors_are_differences_to_the_base() -> None:
    base, first, second = _states(3)
    merged = git_theta.merge_state_dicts(
        base, [first, second], "task_arithmetic", **{"lambda": 0.5}
    )
    expected = base["bias"] + 0.5 * (first["bias"] - base["bias"] + second["bias"] - base["bias"])
    torch.testing.assert_close(merged["bias"], expected)
    with pytest.raises(errors.MergeError, match="no base, which ties needs"):
        git_theta.merge_state_dicts(None, [first, second], "ties")
    second["bias"] = second["bias"][:-1]
    with pytest.raises(errors.MergeError, match="bias has different shapes"):
        git_theta.merge_state_dicts(base, [first, second], "ties")


@pytest.mark.parametrize("name", registry.names("strategies"))
def test_every_strategy_of_tensors_merges_and_the_others_say_why_not(name: str) -> None:
    strategy = strategy_named(name)
    number = max(2, strategy.contributors[0])
    base, *sides = _states(number + 1)
    required = [known.name for known in strategy.hyperparameters if known.required]
    given = {known: "0" if known == "side" else 0.5 for known in required}
    if strategy.kind != "tensors" or strategy.needs_statistic():
        with pytest.raises(errors.MergeError, match=r"git theta merge"):
            git_theta.merge_state_dicts(base, sides, name, **given)
        return
    merged = git_theta.merge_state_dicts(base, sides, name, **given)
    assert merged.keys() == base.keys()
    assert all(merged[key].shape == base[key].shape for key in NAMES)
    assert all(bool(tensor.isfinite().all()) for tensor in merged.values())


def test_the_order_changes_no_bit_and_inputs_stay() -> None:
    base, *sides = _states(4)
    before = [{name: it.clone() for name, it in state.items()} for state in (base, *sides)]
    one = git_theta.merge_state_dicts(base, sides, "della", seed=3)
    other = git_theta.merge_state_dicts(base, sides[::-1], "della", seed=3)
    assert all(torch.equal(one[name], other[name]) for name in NAMES)
    for state, old in zip((base, *sides), before, strict=True):
        assert all(torch.equal(state[name], old[name]) for name in NAMES)


@pytest.mark.parametrize("strategy", ["ties", "dare_ties", "model_stock", "slerp"])
def test_the_bits_are_those_of_a_merge_in_git(strategy: str, repo, tmp_path) -> None:
    base, *sides = _states(3)
    with Repository.discover(repo.path) as opened:
        merger = Merger(opened, tmp_path / "theta")
        stored = [{name: it.numpy() for name, it in state.items()} for state in (base, *sides)]
        expected = merger.merge(merger.versions(*stored), f"*={strategy}")
    merged = git_theta.merge_state_dicts(base, sides, strategy)
    assert merged.keys() == expected.keys()
    assert all(merged[name].numpy().tobytes() == expected[name].tobytes() for name in NAMES)


def test_dtypes_stay_and_integers_must_be_equal() -> None:
    states = [{"w": it["bias"].bfloat16(), "n": torch.tensor([7])} for it in _states(2)]
    merged = git_theta.merge_state_dicts(None, states, "average")
    assert merged["w"].dtype == torch.bfloat16
    assert merged["n"].tolist() == [7]
    states[1]["n"] = torch.tensor([8])
    with pytest.raises(errors.MergeError, match="n has dtype int64, which is never averaged"):
        git_theta.merge_state_dicts(None, states, "average")


@pytest.mark.parametrize(
    ("strategy", "given", "message"),
    [
        ("tise", {}, "there is no strategy called"),
        ("ties", {"desnity": 0.5}, "no hyperparameter"),
        ("average", {"weight": [1, 2, 3]}, "weight"),
    ],
)
def test_mistakes_are_told(strategy: str, given: dict[str, object], message: str) -> None:
    base, *sides = _states(3)
    with pytest.raises(errors.MergeError, match=message):
        git_theta.merge_state_dicts(base, sides, strategy, **given)


def test_names_that_only_some_have_are_told() -> None:
    first, second = _states(2)
    second["head"] = second["bias"]
    with pytest.raises(errors.MergeError, match="head is in code, and math does not have it"):
        git_theta.merge_state_dicts(None, {"math": first, "code": second}, "average")
    with pytest.raises(errors.MergeError, match="at least 1 contributor"):
        git_theta.merge_state_dicts(None, [], "average")


def test_nan_is_refused_unless_it_is_allowed() -> None:
    first, second = _states(2)
    first["bias"][0] = torch.nan
    with pytest.raises(errors.MergeError, match="bias has NaN"):
        git_theta.merge_state_dicts(None, [first, second], "average")
    merged = git_theta.merge_state_dicts(None, [first, second], "average", allow_nan=True)
    assert int(merged["bias"].isnan().sum()) == 1


def test_a_gradient_has_the_number_of_each_layer() -> None:
    ours, theirs = ({f"h.{n}.w": torch.full((2,), v) for n in range(3)} for v in (0.0, 4.0))
    merged = git_theta.merge_state_dicts(None, [ours, theirs], "slerp", t=[0, 1])
    assert [tensor[0].item() for tensor in merged.values()] == [0, 2, 4]
