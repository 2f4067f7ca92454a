"""Trigonometry that is the same everywhere, and means on spheres at their edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from git_theta.merge.kernels import sphere, trigonometry
from git_theta.merge.kernels.prepass import row_gram
from tests.support.merging import merge

PI = math.pi


def scalar(number: float) -> torch.Tensor:
    return torch.tensor([number], dtype=torch.float64)


@given(angle=st.floats(0, PI))
def test_sine_and_cosine_are_right_to_the_last_places(angle: float) -> None:
    assert abs(float(trigonometry.sin(scalar(angle))) - math.sin(angle)) < 1e-15
    assert abs(float(trigonometry.cos(scalar(angle))) - math.cos(angle)) < 1e-15


@given(cosine=st.floats(-1, 1))
def test_arc_cosine_is_right_to_the_last_places(cosine: float) -> None:
    assert abs(float(trigonometry.acos(scalar(cosine))) - math.acos(cosine)) < 2e-15


def test_arc_cosine_holds_what_rounding_put_outside() -> None:
    assert float(trigonometry.acos(scalar(1 + 1e-15))) == 0
    assert math.isclose(float(trigonometry.acos(scalar(-1 - 1e-15))), PI)


def coefficients(mean: torch.Tensor) -> list[float]:
    return [float(value) for value in mean[:, 0]]


def gram(*vectors: list[float]) -> torch.Tensor:
    return row_gram([torch.tensor([vector]) for vector in vectors])


@pytest.mark.parametrize(
    ("first", "second"),
    [([1.0, 0], [-1.0, 0]), ([1.0, 0], [0.0, 0]), ([0.0, 0], [0.0, 0]), ([1.0, 0], [2.0, 0.01])],
    ids=["opposite", "one zero", "both zero", "nearly parallel"],
)
def test_an_arc_without_a_direction_is_a_straight_line(
    first: list[float], second: list[float]
) -> None:
    assert coefficients(sphere.arc(gram(first, second), 0.25)) == [0.75, 0.25]


def test_an_arc_turns_by_its_share_of_the_angle() -> None:
    a, b = coefficients(sphere.arc(gram([1.0, 0], [0.0, 1]), 1 / 3))
    assert math.isclose(a, math.cos(PI / 6))
    assert math.isclose(b, math.sin(PI / 6))


def test_directions_that_cancel_give_the_mean() -> None:
    opposite = gram([1.0, 0], [-3.0, 0])
    assert coefficients(sphere.projected_mean(opposite, [1, 1])) == [0.5, 0.5]
    assert coefficients(sphere.karcher_mean(opposite, [1, 1], 10, 1e-5)) == [0.5, 0.5]


def test_zero_vectors_count_in_the_radius_alone() -> None:
    first, second = coefficients(sphere.projected_mean(gram([2.0, 0], [0.0, 0]), [1, 1]))
    assert (first, second) == (0.5, 0)
    assert coefficients(sphere.projected_mean(gram([0.0], [0.0]), [1, 3])) == [0.25, 0.75]


def test_the_karcher_mean_balances_the_tangents() -> None:
    """Three points on a meridian, at 0, 30 and 90 degrees: the mean is at their mean angle, 40."""
    angles = [0, PI / 6, PI / 2]
    vectors = [[math.cos(angle), math.sin(angle)] for angle in angles]
    found = coefficients(sphere.karcher_mean(gram(*vectors), [1, 1, 1], 50, 1e-12))
    point = [sum(c * v[axis] for c, v in zip(found, vectors, strict=True)) for axis in (0, 1)]
    # The vectors were rounded to float32.
    assert math.isclose(math.degrees(math.atan2(point[1], point[0])), 40, rel_tol=1e-6)
    assert math.isclose(math.hypot(*point), 1, rel_tol=1e-6)


def test_each_row_converges_on_its_own() -> None:
    """A row's result does not depend on how long the others take."""
    generator = torch.Generator().manual_seed(0)
    easy = torch.ones(1, 4)
    wild = torch.randn(3, 1, 4, generator=generator)
    both = [torch.cat([easy, vector]) for vector in wild]
    together = sphere.karcher_mean(row_gram(both), [1, 1, 1], 20, 1e-3)
    alone = sphere.karcher_mean(row_gram(list(wild)), [1, 1, 1], 20, 1e-3)
    assert torch.equal(together[:, 1:], alone)


def test_zero_task_vectors_merge_to_the_base() -> None:
    base = torch.tensor([1.0, 2.0])
    same = [base.clone(), base.clone()]
    for text in ("karcher:task_vectors=true", "nuslerp:task_vectors=true", "model_stock"):
        assert torch.equal(merge(text, same, base), base), text


def test_opposite_task_vectors_stock_to_the_base() -> None:
    base, delta = torch.tensor([1.0, 2.0]), torch.tensor([0.5, -0.25])
    assert torch.equal(merge("model_stock", [base + delta, base - delta], base), base)
