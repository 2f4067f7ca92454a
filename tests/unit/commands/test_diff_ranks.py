"""Numerical ranks of changes whose rank is known."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta.commands.diff.ranks import Rank, Sample, sample_of
from git_theta.encodings.float_formats import FORMATS, narrow, widen

RANDOM = np.random.default_rng(5)


def change(rows: int, columns: int, rank: int) -> np.ndarray:
    left, right = RANDOM.standard_normal((rows, rank)), RANDOM.standard_normal((rank, columns))
    return 0.05 * left @ right


def rank_of(old: np.ndarray, new: np.ndarray, dtype: str = "F32", block: int = 3001) -> Rank | None:
    form = FORMATS[dtype]
    rounded = [widen(narrow(each, form), form).ravel() for each in (old, new)]
    sample = sample_of(old.shape, (dtype, dtype))
    assert sample is not None
    starts = [*range(0, old.size, block)]
    for first in reversed(starts):  # threads come in any order
        assert sample.rank is None
        sample.fill(first, *(each[first : first + block] for each in rounded))
    return sample.rank


@pytest.mark.parametrize("dtype", ["F64", "F32", "BF16"])
@pytest.mark.parametrize(("shape", "rank"), [((300, 400), 5), ((64, 700), 16), ((40, 30), 1)])
def test_a_change_of_low_rank_has_that_rank(dtype, shape, rank):
    old = RANDOM.standard_normal(shape)
    assert rank_of(old, old + change(*shape, rank), dtype) == Rank(rank, is_least=False)


def test_a_dense_change_has_at_least_the_rank_of_the_sample():
    old = RANDOM.standard_normal((300, 400))
    noise = 0.01 * RANDOM.standard_normal(old.shape)
    assert rank_of(old, old + noise) == Rank(256, is_least=True)
    assert rank_of(old[:30], old[:30] + noise[:30]) == Rank(30, is_least=False)


def test_rounding_alone_has_no_rank():
    old = RANDOM.standard_normal((200, 200))
    half = widen(narrow(old, FORMATS["BF16"]), FORMATS["BF16"])
    assert rank_of(old, half, "BF16") == Rank(0, is_least=False)


def test_a_tensor_of_more_dimensions_is_a_matrix_of_the_first():
    old = RANDOM.standard_normal((20, 5, 6))
    new = old + change(20, 30, 3).reshape(old.shape)
    assert rank_of(old, new) == Rank(3, is_least=False)


def test_numbers_that_are_not_finite_do_not_count():
    old = RANDOM.standard_normal((50, 50))
    new = old + change(50, 50, 2)
    new[3, 4], old[9, 9] = np.nan, np.inf
    found = rank_of(old, new)
    assert found is not None
    assert 2 <= found.value <= 6


def test_what_is_no_matrix_of_floats_has_none():
    assert sample_of((40,), ("F32", "F32")) is None
    assert sample_of((4, 4), ("I8", "F32")) is None
    assert sample_of((4, 0), ("F32", "F32")) is None


def test_the_sample_is_let_go():
    sample = Sample((2, 2), ("F32", "F32"))
    sample.fill(0, np.zeros(4), np.ones(4))
    assert sample.rank == Rank(1, is_least=False)
    assert sample._values is sample._places is None
