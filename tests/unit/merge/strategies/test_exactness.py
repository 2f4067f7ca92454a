"""Probabilities and variances are exact where rounding would choose other elements."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.strategies.della import keep_probabilities
from git_theta.merge.strategies.sce import variance
from tests.support.merging import merge


@pytest.mark.parametrize("width", [2, 3, 256, 2048, 3072])
@pytest.mark.parametrize("epsilon", [0.1, 0.15, 0.3])
def test_della_never_keeps_the_smallest_where_density_is_epsilon(width, epsilon):
    falling = keep_probabilities(width, epsilon, epsilon).float().tolist()
    assert falling[-1] == 0
    assert falling[0] == pytest.approx(2 * epsilon)
    assert falling[-2] == pytest.approx(2 * epsilon / (width - 1))
    rising = keep_probabilities(width, 1 - epsilon, epsilon).float().tolist()
    assert rising[0] == 1


def test_della_at_the_bound_multiplies_nothing_by_millions():
    generator = torch.Generator().manual_seed(0)
    base = torch.zeros(64, 3072)
    models = [torch.randn(64, 3072, generator=generator) * 0.01 for _ in range(2)]
    merged = merge("della_linear:density=0.15,epsilon=0.15", models, base)
    # The least probability above 0 is one step; its element is divided by it.
    assert merged.abs().max() <= 2 * max(m.abs().max() for m in models) * 3071 / 0.3


def test_sce_gives_equal_variances_to_equal_differences():
    """In bf16 at N = 3 a mean in float32 told 448 of 4,096 equal elements apart."""
    rows = [p for offset in range(40) for p in itertools.permutations((0.0, 1.0, 3.0))]
    offsets = torch.arange(240.0).div(6, rounding_mode="floor") / 8
    models = [torch.tensor([row[side] for row in rows]) + offsets for side in range(3)]
    found = variance([model.bfloat16() for model in models])
    assert found.dtype == torch.float64
    assert set(found[offsets < 8].tolist()) == {14 / 9}


def test_sce_at_magnitudes_whose_squares_overflow_float32():
    random = torch.Generator().manual_seed(1)
    deltas = [torch.randn(64, generator=random) * 1e21 for _ in range(3)]
    found = variance(deltas)
    wide = torch.stack([d.double() for d in deltas])
    expected = ((wide - wide.mean(0)) ** 2).mean(0)
    assert torch.equal(found.argsort(), expected.argsort())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert all(map(math.isfinite, found.tolist()))


def test_sce_does_not_depend_on_the_order_of_the_contributors():
    random = torch.Generator().manual_seed(2)
    models = [torch.randn(4, 33, generator=random).bfloat16() for _ in range(4)]
    base = torch.zeros(4, 33).bfloat16()
    first = merge("sce:select_topk=0.3", models, base)
    assert torch.equal(first, merge("sce:select_topk=0.3", models[::-1], base))
    assert Inputs.of("w", models, base).count == 132


def test_nuslerp_follows_the_arc_between_almost_parallel_vectors():
    """In a straight line, as slerp goes there, the middle is shorter by an eighth of the angle²."""
    angle = 0.01
    one = torch.tensor([1.0, 0.0], dtype=torch.float64)
    other = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    assert abs(float(merge("nuslerp", [one, other]).norm()) - 1) < 1e-12
    assert abs(float(merge("slerp", [one, other]).norm()) - (1 - angle**2 / 8)) < 1e-9
