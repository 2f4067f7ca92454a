"""The table of a sweep on disk, and as a picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from git_theta.merge.sweep.plot import svg
from git_theta.merge.sweep.table import Point, Table, summary

IDENTITY = {"eval": "score {model}", "fixed": ["a=1"], "rules": ()}


def point(value: str, **scores: float) -> Point:
    return Point(
        (("lambda", value),), scores, "" if scores else "it failed", {"m": "h"}, (1.0, 2.0)
    )


def test_points_come_back_as_they_were(tmp_path):
    table = Table(tmp_path, IDENTITY)
    for each in (point("0.5", score=1.5), point("1.0")):
        table.add(each)
    again = Table(tmp_path, IDENTITY)
    again.load()
    wanted = [(("lambda", value),) for value in ("1.0", "0.5", "2.0")]
    assert again.points(wanted) == [point("1.0"), point("0.5", score=1.5)]
    assert again.scored(wanted[1]) == point("0.5", score=1.5)
    assert again.scored(wanted[0]) is None  # tried again
    assert again.objectives == ["score"]


def test_another_command_is_another_table(tmp_path):
    Table(tmp_path, IDENTITY).add(point("0.5", score=1.5))
    other = Table(tmp_path, {**IDENTITY, "eval": "other {model}"})
    other.load()
    assert other.points([(("lambda", "0.5"),)]) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', "[" * 100_000, '{"version": 9}'])
def test_a_file_that_is_no_table_counts_as_none(tmp_path, text):
    table = Table(tmp_path, IDENTITY)
    table.file.write_text(text)
    table.load()
    assert table.objectives == []


def test_the_summary_leaves_out_points_without_scores():
    found = summary(
        [point("0.5", acc=1.0, loss=2.0), point("1.0"), point("1.5", loss=3.0, acc=0.0)]
    )
    assert found == {
        "swept": ["lambda"],
        "objectives": ["acc", "loss"],
        "points": [[["0.5"], [1.0, 2.0]], [["1.5"], [0.0, 3.0]]],
    }


def circles(text: str) -> list[dict[str, str]]:
    root = ET.fromstring(text)
    return [found.attrib for found in root.iter("{http://www.w3.org/2000/svg}circle")]


def test_the_plot_has_a_mark_for_each_score_and_the_best_stands_out():
    points = [point("0.5", score=1.0), point("1.0"), point("1.5", score=3.0)]
    first, second = circles(svg(points, [2]))
    assert float(first["cx"]) < float(second["cx"])
    assert float(first["cy"]) > float(second["cy"])  # y goes downwards
    assert first["fill"] != second["fill"]


@pytest.mark.parametrize("values", [("model", "tensor"), ("1", "1")])
def test_words_and_equal_numbers_can_be_plotted(values):
    points = [point(value, **{"<acc>": 1.0}) for value in values]
    assert len(circles(svg(points, [0, 1]))) == 2


def test_two_objectives_are_plotted_over_each_other():
    first, second = circles(svg([point("9", a=1.0, b=5.0), point("3", a=2.0, b=4.0)], [0, 1]))
    assert float(first["cx"]) < float(second["cx"])
    assert float(first["cy"]) < float(second["cy"])
