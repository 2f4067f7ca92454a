"""Gradients of hyperparameters, and ranges of layers in globs."""

from __future__ import annotations

import json

import pytest

from git_theta.errors import MergeError
from git_theta.merge.rules import globs, gradients
from git_theta.merge.rules.binding import bind
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.rules import parse_rule

NAMES = ("main", "dev")


def bound(text: str):
    return parse_rule(f"*={text}").bind(NAMES)


@pytest.mark.parametrize(
    ("numbers", "depth", "expected"),
    [
        ([0.0, 0.5, 1.0], 0, 0),
        ([0.0, 0.5, 1.0], 0.25, 0.25),
        ([0.0, 0.5, 1.0], 1, 1),
        ([1.0, 0.0], 0.75, 0.25),
        ([0.3], 0.6, 0.3),
        ([0.0, 1.0, 0.0], 0.5, 1),
    ],
)
def test_a_gradient_is_a_line_between_its_numbers(numbers, depth, expected):
    assert gradients.at(gradients.gradient(numbers), depth) == pytest.approx(expected)


def test_it_is_read_from_a_text_a_list_and_a_recipe():
    found = strategy_named("slerp")
    for value in ("[0,0.5,1]", [0, 0.5, 1], {"gradient": [0, 0.5, 1]}):
        assert bind(found, {"t": value}, NAMES) == {"t": {"gradient": [0.0, 0.5, 1.0]}}


def test_one_for_one_contributor():
    values = bound("average:weight.main=[0,1],weight.dev=3").values
    assert values["weight"] == [{"gradient": [0.0, 1.0]}, 3.0]
    assert json.loads(json.dumps(values)) == values
    method = bound("average:weight.main=[0,1],weight.dev=3")
    assert method.at(0.5).values["weight"] == [0.5, 3.0]
    assert method.at(0.5).values_of([1, 0])["weight"] == [3.0, 0.5]


def test_a_branch_may_be_called_gradient():
    values = parse_rule("*=average:weight.gradient=2").bind(("main", "gradient")).values
    assert values["weight"] == [1.0, 2.0]


def test_numbers_of_a_list_stay_one_for_each_contributor():
    assert bound("average:weight=[1,2]").values["weight"] == [1.0, 2.0]


def test_one_of_a_rule_within_a_strategy():
    method = bound("svc:rule=[task_arithmetic:lambda=[0,1]]").at(0.25)
    assert method.values["rule"]["hyperparameters"]["lambda"] == 0.25


def test_a_strategy_without_gradients_is_the_same_at_every_depth():
    method = bound("average")
    assert method.at(0.5) is method


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("slerp:t=[0,2]", "0 to 1"),
        ("slerp:t=[]", "t cannot be"),
        ("slerp:t=[0,x]", "t cannot be"),
        ("ties:density.main=[0.1,0.9]", "one value for the whole model"),
        ("karcher:max_iter=[1,2]", "max_iter cannot be"),
        ("average:weight.main=[0,1],weight.dev=0", "add up to 0"),
        ("svc:rule=[ties:density[main]=[0.1,0.9]]", "one value for the whole model"),
    ],
)
def test_what_no_gradient_can_be(text, reason):
    with pytest.raises(MergeError, match=reason):
        bound(text)


@pytest.mark.parametrize(
    ("name", "glob", "expected"),
    [
        ("model.layers.0.w", "*.layers.0-7.*", True),
        ("model.layers.7.w", "*.layers.0-7.*", True),
        ("model.layers.8.w", "*.layers.0-7.*", False),
        ("model.layers.17.w", "*.layers.0-7.*", False),
        ("layers.3.w", "layers.0-7.*", True),
        ("model.layers.9.experts.3.w", "*.layers.0-7.*", False),
        ("model.layers.9.experts.3.w", "*.experts.0-7.*", True),
        ("h.3", "h.3-3", True),
        ("h.0-7.w", "h.0-7.w", False),
        ("x.0_0-7", "x.0_0-7", True),
        ("h." + "9" * 5000, "h.0-7", False),
    ],
)
def test_a_range_of_layers_in_a_glob(name, glob, expected):
    assert globs.matches(name, glob) is expected


@pytest.mark.parametrize("glob", ["h.7-0.*", "h.0-7.experts.0-3.*"])
def test_a_range_that_cannot_be_followed(glob):
    with pytest.raises(MergeError, match="no valid range of layers"):
        globs.matches("h.1.experts.1.w", glob)
