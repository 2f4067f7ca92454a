"""Grids and random points of hyperparameters."""

from __future__ import annotations

import pytest

from git_theta.errors import UsageError
from git_theta.merge.sweep.space import LARGEST, drawn, grid, parse_space


def test_a_range_has_the_decimal_numbers_that_are_written():
    """In binary floating point, 0.1 + 2 * 0.1 is 0.30000000000000004."""
    points = grid(parse_space(["lambda=0.1:0.5:0.1"]), None)
    assert points == [(("lambda", text),) for text in ("0.1", "0.2", "0.3", "0.4", "0.5")]
    assert len(grid(parse_space(["t=0:1:0.3"]), None)) == 4


def test_every_combination_is_a_point_and_the_innermost_changes_fastest():
    space = parse_space(["lambda=1:2:1", "density=0.2", "density=0.5", "scope=tensor"])
    points = grid(space, "lambda")
    assert [[value for _, value in point] for point in points] == [
        ["1", "0.2"],
        ["2", "0.2"],
        ["1", "0.5"],
        ["2", "0.5"],
    ]
    assert space.items(points[1]) == ["scope=tensor", "lambda=2", "density=0.2"]


def test_random_points_depend_on_the_seed_alone():
    space = parse_space(["lambda=0:2", "density=0.1:0.9:0.1"])
    points = drawn(space, 20, 7, "lambda")
    assert points == drawn(space, 20, 7, "lambda")
    assert points != drawn(space, 20, 8, "lambda")
    assert len(set(points)) == 20
    densities = [dict(point)["density"] for point in points]
    assert densities == sorted(densities)  # those that share X follow each other
    assert all(0 <= float(dict(point)["lambda"]) <= 2 for point in points)


def test_no_more_random_points_than_there_are():
    assert len(drawn(parse_space(["scope=model", "scope=tensor"]), 9, 0, None)) == 2


@pytest.mark.parametrize(
    ("items", "words"),
    [
        (["lambda=0.5"], "nothing to sweep"),
        (["lambda"], "is not KEY=VALUE"),
        (["lambda=1:0:0.1"], "is not a range"),
        (["lambda=0:1:0"], "is not a range"),
        (["lambda=a:b:c"], "is not a range"),
        (["lambda=0:inf:1"], "is not a range"),
        (["lambda=0:1:0.1:2"], "is not a range"),
        (["lambda=0:1"], "has no step"),
        (["lambda=0:1:0.1", "lambda=3"], "either one range or several values"),
        (["lambda=0:1:1e-9"], f"{LARGEST:,} are the limit"),
        (["a=1:101:1", "b=1:101:1"], "the grid has 10,201 points"),
    ],
)
def test_what_is_no_space(items, words):
    with pytest.raises(UsageError, match=words.replace(".", r"\.")):
        grid(parse_space(items), None)
