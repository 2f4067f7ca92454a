"""Truncated decompositions, against numpy's own."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta.commands.lora_export.svd import truncated

RANDOM = np.random.default_rng(2)
# Above and below the size from which the range finder is used.
SHAPES = [(60, 40), (400, 520)]


def decaying(rows: int, columns: int) -> np.ndarray:
    count = min(rows, columns)
    left, _ = np.linalg.qr(RANDOM.standard_normal((rows, count)))
    right, _ = np.linalg.qr(RANDOM.standard_normal((columns, count)))
    return (left * 0.9 ** np.arange(count)) @ right.T


def tail(matrix: np.ndarray, rank: int) -> float:
    values = np.linalg.svd(matrix, compute_uv=False)
    return float(np.linalg.norm(values[rank:]))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rank_gives_the_nearest_product_of_that_rank(shape):
    matrix = decaying(*shape)
    for rank in (1, 12):
        up, down = truncated(matrix, rank)
        assert (up.shape, down.shape) == ((shape[0], rank), (rank, shape[1]))
        assert np.linalg.norm(matrix - up @ down) == pytest.approx(tail(matrix, rank), rel=1e-3)
    assert truncated(matrix, 10**6)[0].shape == (shape[0], min(shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("energy", [0.5, 0.99, 0.99999])
def test_energy_takes_the_least_rank_that_has_it(shape, energy):
    matrix = decaying(*shape)
    up, down = truncated(matrix, energy=energy)
    squares = np.square(np.linalg.svd(matrix, compute_uv=False))
    least = 1 + int(np.searchsorted(np.cumsum(squares), energy * squares.sum()))
    assert up.shape[1] == least
    lost = np.linalg.norm(matrix - up @ down) ** 2 / squares.sum()
    assert lost <= (1 - energy) * 1.0001


def test_a_matrix_of_low_rank_is_found_exactly():
    matrix = (RANDOM.standard_normal((700, 5)) @ RANDOM.standard_normal((5, 500))).astype("f4")
    up, down = truncated(matrix, energy=0.999999)
    assert up.shape[1] == 5
    np.testing.assert_allclose(up @ down, matrix, atol=1e-4)


def test_the_same_matrix_gives_the_same_factors():
    matrix = decaying(400, 450)
    for one, other in zip(truncated(matrix, 4), truncated(matrix, 4), strict=True):
        np.testing.assert_array_equal(one, other)
