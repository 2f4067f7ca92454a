"""LoRA factors merge as their products."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from git_theta.errors import MergeError
from git_theta.merge.kernels.lora import LoraFactors, concatenated, inner_products, truncated
from tests.support.merging import grid

RANKS = (2, 3, 4)
WEIGHTS = [1.0, -0.5, 2.0]


def adapters(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[LoraFactors]:
    """Three adapters of a weight [9, 12], of ranks 2, 3 and 4 and other scales."""
    units = []
    for place, rank in enumerate(RANKS):
        (down,) = grid(seed + place, (rank, 12), 1, dtype)
        (up,) = grid(seed + place + 50, (9, rank), 1, dtype)
        units.append(LoraFactors(down, up, 2.0**place))
    return units


def change(unit: LoraFactors) -> Tensor:
    return unit.scale * unit.up.double().flatten(1) @ unit.down.double().flatten(1)


def wanted(units: list[LoraFactors]) -> Tensor:
    return sum(w * change(u) for w, u in zip(WEIGHTS, units, strict=True))  # type: ignore[return-value]


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([0.5, 1.0, 4.0]))
def test_concatenation_is_exact(seed: int, scale: float) -> None:
    units = adapters(seed)
    merged = concatenated(units, WEIGHTS, scale)
    assert (merged.rank, merged.scale) == (sum(RANKS), scale)
    assert torch.equal(change(merged), wanted(units))


def test_the_order_of_adapters_changes_no_bit() -> None:
    units = adapters()
    first = concatenated(units, WEIGHTS)
    for order in itertools.permutations(range(3)):
        merged = concatenated([units[n] for n in order], [WEIGHTS[n] for n in order])
        assert torch.equal(merged.down, first.down)
        assert torch.equal(merged.up, first.up)


@pytest.mark.parametrize("rank", [1, 4, 8, 9])
def test_truncation_is_the_nearest_of_its_rank(rank: int) -> None:
    units = adapters()
    merged = truncated(units, WEIGHTS, rank, scale=0.5)
    whole = wanted(units)
    values = torch.linalg.svdvals(whole)
    assert merged.rank == rank
    error = float((change(merged) - whole).norm())
    assert error == pytest.approx(float(values[rank:].norm()), rel=1e-4, abs=1e-4)
    assert merged.lost == pytest.approx(float(values[rank:].norm() / values.norm()), abs=1e-9)


@pytest.mark.parametrize("scale", [-0.5, 3.0])
def test_a_scale_of_any_sign(scale: float) -> None:
    units = adapters()
    for merged in (truncated(units, WEIGHTS, 9, scale), concatenated(units, WEIGHTS, scale)):
        assert merged.scale == scale
        torch.testing.assert_close(change(merged), wanted(units), rtol=1e-5, atol=1e-4)


def test_sums_that_are_too_large_or_too_small() -> None:
    units = adapters()
    huge = [LoraFactors(unit.down, unit.up, 1e308) for unit in units]
    with pytest.raises(MergeError, match="too large for float32"):
        concatenated(huge, [1e6] * 3)
    with pytest.raises(MergeError, match="too large for float64"):
        truncated(huge, [1e6] * 3, 3)
    tiny = [
        LoraFactors(unit.down.double(), unit.up.double(), 1e-300 * unit.scale) for unit in units
    ]
    assert truncated(tiny, WEIGHTS, 3).lost == pytest.approx(truncated(units, WEIGHTS, 3).lost)


def test_truncation_to_more_than_there_is_pads_with_zeros() -> None:
    units = adapters()
    merged = truncated(units, WEIGHTS, 16)
    assert (merged.down.shape, merged.up.shape, merged.lost) == ((16, 12), (9, 16), 0)
    torch.testing.assert_close(change(merged), wanted(units), rtol=1e-5, atol=1e-5)
    assert not bool(merged.down[9:].any())


def test_truncating_adapters_that_change_nothing() -> None:
    nothing = LoraFactors(torch.zeros(2, 5), torch.zeros(4, 2))
    merged = truncated([nothing, nothing], [1, 1], 2)
    assert merged.lost == 0
    assert not bool(merged.up.any())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    units = adapters(dtype=dtype)
    assert concatenated(units, WEIGHTS).up.dtype == dtype
    assert truncated(units, WEIGHTS, 3).down.dtype == dtype


def test_convolutions_keep_their_axes() -> None:
    units = [
        LoraFactors(*grid(n, (2, 3, 5, 5), 1), grid(n + 9, (4, 2, 1, 1), 1)[0]) for n in (0, 1)
    ]
    whole = change(units[0]) + change(units[1])
    joined = concatenated(units, [1, 1])
    assert (joined.down.shape, joined.up.shape) == ((4, 3, 5, 5), (4, 4, 1, 1))
    assert torch.equal(change(joined), whole)
    merged = truncated(units, [1, 1], 4)
    assert (merged.down.shape, merged.up.shape) == ((4, 3, 5, 5), (4, 4, 1, 1))
    torch.testing.assert_close(change(merged), whole, rtol=1e-5, atol=1e-4)


def test_factors_that_do_not_fit_are_refused() -> None:
    (good,) = adapters()[:1]
    with pytest.raises(MergeError, match="different shapes or dtypes"):
        concatenated([good, LoraFactors(good.down[:, :5], good.up)], [1, 1])
    with pytest.raises(MergeError, match="different shapes or dtypes"):
        concatenated([good, LoraFactors(good.down.half(), good.up)], [1, 1])
    with pytest.raises(MergeError, match="their ranks differ"):
        concatenated([LoraFactors(good.down[:1], good.up)], [1])
    with pytest.raises(MergeError, match="NaN or infinity"):
        truncated([LoraFactors(good.down * torch.inf, good.up)], [1], 2)


def test_inner_products_are_those_of_the_updates() -> None:
    units = adapters()
    updates = torch.stack([change(unit).flatten() for unit in units])
    torch.testing.assert_close(inner_products(units), updates @ updates.T)
