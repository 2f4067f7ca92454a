"""Sums of a fixed order, exact shares, and masks without comparisons."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from git_theta.merge.kernels import reductions
from git_theta.merge.kernels.reductions import (
    above,
    agreeing_mean,
    below,
    dots,
    elect,
    floor_of,
    is_finite,
    kept,
    quotient,
    tree_sum,
    weighted_sum,
)

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [
        (0.29, 100, 29),  # 0.29 * 100 is 28.999999999999996.
        (0.2, 10, 2),
        (0.0, 10, 1),
        (1.0, 10, 10),
        (0.5, 1, 1),
        (0.5, 0, 0),
        (1e-9, 10, 1),
    ],
)
def test_shares_are_of_the_decimal_number_that_was_written(
    share: float, count: int, expected: int
) -> None:
    assert kept(share, count) == expected


@given(share=st.integers(0, 1000), count=st.integers(0, 10**12))
def test_shares_in_thousandths_are_exact(share: int, count: int) -> None:
    assert floor_of(share / 1000, count) == share * count // 1000


@given(values=st.lists(finite, min_size=1), threshold=finite)
def test_masks_are_comparisons(values: list[float], threshold: float) -> None:
    tensor = torch.tensor(values)
    assert torch.equal(above(tensor, threshold), (tensor > threshold).float())
    assert torch.equal(below(tensor, threshold), (tensor < threshold).float())


def test_masks_hold_among_subnormal_numbers() -> None:
    tiny = torch.tensor([1e-45, 2.8e-45, 0.0])
    assert above(tiny, tiny[0]).tolist() == [0, 1, 0]


def test_zero_is_elected_positive() -> None:
    assert elect(torch.tensor([-1.0, -0.0, 0.0, 2.0])).tolist() == [-1, 1, 1, 1]


def test_the_agreeing_mean_leaves_out_zeros_and_the_minority() -> None:
    deltas = [torch.tensor([1.0, -4, 0, 2, 0]), torch.tensor([3.0, 1, 0, -2, 5])]
    assert agreeing_mean(deltas, [1.0, 1.0]).tolist() == [2, -4, 0, 2, 5]
    assert agreeing_mean(deltas, [1.0, 3.0]).tolist() == [2.5, -4, 0, -2, 5]


@given(st.lists(st.integers(-1000, 1000), max_size=70))
def test_tree_sums_are_sums(values: list[int]) -> None:
    assert float(tree_sum(torch.tensor(values, dtype=torch.float64))) == sum(values)


def test_tree_sums_add_pairs_of_halves() -> None:
    """2^53 + 1 + 1 + 1 + 1 in float64 depends on the order: (2^53 + 1) + (1 + 1), then + 1."""
    values = torch.tensor([2.0**53, 1, 1, 1, 1], dtype=torch.float64)
    assert float(tree_sum(values)) == ((2.0**53 + 1) + (1.0 + 1)) + 1


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 40])
def test_dot_products_are_exact_sums_of_blocks(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reductions, "BLOCK", 16)
    left = torch.randn(count, generator=torch.Generator().manual_seed(count))
    right = left * 3 + 1
    partial = dots(left, right)
    assert len(partial) == math.ceil(count / 16)
    exact = math.fsum(a * b for a, b in zip(left.tolist(), right.tolist(), strict=True))
    assert math.isclose(math.fsum(partial), exact, rel_tol=1e-14, abs_tol=1e-14)


def test_finiteness_is_told_even_where_the_sum_overflows() -> None:
    assert is_finite(torch.full((4,), 3e38))
    assert is_finite(torch.empty(0))
    assert not is_finite(torch.tensor([1.0, math.nan]))
    assert not is_finite(torch.tensor([math.inf, -math.inf]))


def test_sums_and_quotients_keep_the_dtype() -> None:
    for dtype in (torch.float32, torch.float64):
        ones = torch.ones(2, dtype=dtype)
        assert weighted_sum([ones, ones], [0.25, 0.5]).dtype == dtype
        assert quotient(ones, 3).dtype == dtype
        assert quotient(ones, 3).tolist() == (ones / 3).tolist()
