"""Scores in the output of an evaluation, and the best of several."""

from __future__ import annotations

import pytest

from git_theta.errors import MergeError
from git_theta.merge.sweep.scores import best, front, parse_scores


@pytest.mark.parametrize(
    ("output", "scores"),
    [
        ("loading\n0.5\n", {"score": 0.5}),
        ("0.5\n\n  \n", {"score": 0.5}),
        ("1e-3, -2", {"score1": 1e-3, "score2": -2.0}),
        ("acc=0.9 loss=0.2", {"acc": 0.9, "loss": 0.2}),
        ("acc:0.9, loss:0.2", {"acc": 0.9, "loss": 0.2}),
        ('{"acc": 0.9, "n": 3}', {"acc": 0.9, "n": 3.0}),
    ],
)
def test_the_last_line_is_the_score(output, scores):
    assert parse_scores(output) == scores


@pytest.mark.parametrize(
    "output",
    ["", "done", "0.5\ndone", "nan", "inf", "acc=x", '{"a": "b"}', "{", '{"a": true}', "{}"],
)
def test_what_is_no_score(output):
    with pytest.raises(MergeError, match="is not a score"):
        parse_scores(output)


def test_the_front_has_what_no_other_point_beats():
    points = [{"acc": a, "loss": b} for a, b in ((1, 1), (2, 2), (3, 1), (3, 1), (0, 9), (2, 3))]
    assert front(points, set()) == [2, 3, 4, 5]
    assert front(points, {"loss"}) == [2, 3]
    assert front([{"score": 1.0}, {"score": 3.0}, {"score": 2.0}], set()) == [1]


def test_the_best_by_one_objective_is_the_first_of_equal_ones():
    points = [{"acc": 1.0}, {"acc": 2.0}, {"acc": 2.0}, {"acc": 0.5}]
    assert best(points, set(), "acc") == 1
    assert best(points, {"acc"}, "acc") == 3
