"""Embeddings and heads of vocabularies that grew."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.merges import Merger


def draw(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 4)).astype(np.float32)


BASE = {"embed.weight": draw(0, 6), "w": draw(9, 3)}
OURS = {"embed.weight": draw(1, 8), "w": BASE["w"]}
THEIRS = {"embed.weight": draw(2, 6), "w": BASE["w"]}
ALSO_GROWN = {"embed.weight": draw(3, 9), "w": BASE["w"]}


def embedding(merger: Merger, *sides, rows: str, rule: str = "*=average") -> np.ndarray:
    return merger.merge(merger.versions(BASE, *sides), rule, rows=rows)["embed.weight"]


@pytest.mark.parametrize(
    ("rows", "count"), [("common", 6), ("ours", 8), ("theirs", 6), ("union", 8)]
)
@pytest.mark.parametrize("rule", ["*=average", "*=ties:density=1", "*=task_arithmetic"])
def test_the_rows_that_all_have_are_merged_and_the_rest_is_taken(merger, rows, count, rule):
    merged = embedding(merger, OURS, THEIRS, rows=rows, rule=rule)
    assert merged.shape == (count, 4)
    cut = {"embed.weight": OURS["embed.weight"][:6], "w": BASE["w"]}
    expected = merger.merge(merger.versions(BASE, cut, THEIRS), rule)["embed.weight"]
    np.testing.assert_allclose(merged[:6], expected, rtol=1e-6)
    np.testing.assert_array_equal(merged[6:], OURS["embed.weight"][6:count])


@pytest.mark.parametrize(("rows", "count"), [("common", 6), ("ours", 8), ("theirs", 9)])
def test_where_both_grew_new_rows_are_one_sides(merger, rows, count):
    """Rows of tokens that each side added have nothing to do with each other."""
    merged = embedding(merger, OURS, ALSO_GROWN, rows=rows)
    assert len(merged) == count
    mean = (OURS["embed.weight"][:6] + ALSO_GROWN["embed.weight"][:6]) / 2
    np.testing.assert_allclose(merged[:6], mean, rtol=1e-6)
    side = ALSO_GROWN if rows == "theirs" else OURS
    np.testing.assert_array_equal(merged[6:], side["embed.weight"][6:count])


def test_a_union_where_both_grew_is_a_conflict(merger):
    plan = merger.plan(merger.versions(BASE, OURS, ALSO_GROWN), "*=average", rows="union")
    (conflict,) = plan.conflicts
    assert "several sides added rows, which a union by number would mix up" in conflict.reason


def test_both_grew_alike(merger):
    grown = {"embed.weight": draw(5, 8), "w": BASE["w"]}
    merged = embedding(merger, OURS, grown, rows="ours")
    np.testing.assert_array_equal(merged[6:], OURS["embed.weight"][6:])


def test_without_the_option_the_conflict_names_it(merger):
    plan = merger.plan(merger.versions(BASE, OURS, THEIRS), "*=average")
    (conflict,) = plan.conflicts
    assert conflict.reason.endswith(
        "(main: [8, 4], dev: [6, 4]); --rows merges those that all have"
    )


def test_other_shapes_stay_in_conflict(merger):
    wide = {"embed.weight": np.ones((6, 5), np.float32), "w": BASE["w"]}
    plan = merger.plan(merger.versions(BASE, OURS, wide), "*=average", rows="ours")
    (conflict,) = plan.conflicts
    assert "--rows" not in conflict.reason
