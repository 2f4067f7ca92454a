"""Merging one tensor: what is refused, how it is rounded, and where it is computed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from git_theta.core import registry
from git_theta.errors import MergeError
from git_theta.merge.compute.tensor import merge_tensor
from git_theta.merge.kernels.slices import Inputs, content_of, rows
from git_theta.merge.planning.tensors import identity_value
from tests.support.merging import grid, merge, method

OTHERS = ("take", "fisher", "regmean", "cat", "svd", "core", "concat")
STRATEGIES = [name for name in registry.names("strategies") if name not in OTHERS]
FLOATS = [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float64]


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_every_float_dtype_is_kept_and_rounded_once(name: str, dtype: torch.dtype) -> None:
    *contributors, base = [tensor / 4 for tensor in grid(3, (6, 5), 3)]
    stored = [tensor.to(dtype) for tensor in contributors]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    exact = [tensor.to(wide) for tensor in stored]
    # The same random masks for both, whose bytes differ.
    same = {"contents": ("a", "b")}

    merged = merge(name, stored, base.to(dtype), **same)

    assert merged.dtype == dtype
    expected = merge(name, exact, base.to(dtype).to(wide), **same).to(dtype)
    assert torch.equal(merged.view(torch.uint8), expected.view(torch.uint8))


def test_computing_is_in_float32_and_rounding_to_nearest_even() -> None:
    """The mean of 1 and 1 + 2^-7 lies half-way between two bf16 numbers; so does the next one."""
    action = 2**-7
    first = torch.tensor([1.0, 1.0 + action]).bfloat16()
    second = torch.tensor([1.0 + action, 1.0 + 2 * action]).bfloat16()
    assert merge("average", [first, second]).tolist() == [1.0, 1.0 + 2 * action]


def test_float64_is_computed_in_float64() -> None:
    first = torch.tensor([1.0], dtype=torch.float64)
    assert merge("average", [first, first + 2**-40]).item() == 1 + 2**-41


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (5, 1), (1,)], ids=str)
def test_odd_shapes_are_kept(name: str, shape: tuple[int, ...]) -> None:
    *contributors, base = grid(1, shape, 3)
    merged = merge(name, contributors, base)
    assert merged.shape == shape
    assert bool(merged.isfinite().all())


@pytest.mark.parametrize("name", STRATEGIES)
def test_tensors_of_zeros_merge_to_zeros(name: str) -> None:
    zero = torch.zeros(4, 3)
    assert torch.equal(merge(name, [zero, zero], zero), zero)


@pytest.mark.parametrize("name", STRATEGIES)
def test_opposite_task_vectors_give_something_finite(name: str) -> None:
    delta, base = grid(1, (4, 3), 2)
    assert bool(merge(name, [base + delta, base - delta], base).isfinite().all())
    assert bool(merge(name, [delta, -delta], torch.zeros_like(delta)).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*STRATEGIES, "fisher"])
def test_nan_in_an_input_is_refused_by_name(name: str, dtype: torch.dtype) -> None:
    first, second, base = (tensor.to(dtype) for tensor in grid(1, (4, 3), 3))
    first[2, 1] = math.nan
    statistics = [second, second] if name == "fisher" else []
    inputs = Inputs.of("layer.7", [first, second], base, statistics)
    with pytest.raises(MergeError, match=r"^layer\.7 has NaN in an input") as caught:
        merge_tensor(method(name, 2), inputs, [1.0, 1.0])
    assert caught.value.hint


def test_nan_passes_where_it_is_allowed() -> None:
    first, second = grid(1, (2, 2), 2)
    first[0, 1] = math.nan
    merged = merge("average", [first, second], allow_nan=True)
    assert merged.isnan().tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_nan_in_base_or_statistic_is_refused_too(dtype: torch.dtype) -> None:
    first, second, bad = (tensor.to(dtype) for tensor in grid(1, (4,), 3))
    bad[0] = math.nan
    for name in ("task_arithmetic", "average", "ties"):
        with pytest.raises(MergeError, match="NaN"):
            merge(name, [first, second], bad)
    with pytest.raises(MergeError, match="NaN"):
        merge("fisher:normalize=false", [first, second], None, [first.abs(), bad])


def test_infinity_is_kept_where_every_side_has_it() -> None:
    """As in a mask that is stored as a buffer."""
    mask = torch.tensor([0.0, -math.inf])
    assert torch.equal(merge("average", [mask, mask]), mask)
    with pytest.raises(MergeError, match="not a number"):
        merge("task_arithmetic", [mask, mask], mask)


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz],
    ids=str,
)
def test_a_result_that_the_dtype_cannot_hold_is_refused(dtype: torch.dtype) -> None:
    large = torch.tensor([torch.finfo(dtype).max]).to(dtype)
    with pytest.raises(MergeError, match="w cannot hold the result"):
        merge("average:normalize=false", [large, large])


@pytest.mark.parametrize(
    "dtype",
    [torch.int64, torch.uint8, torch.bool, torch.complex64, torch.float8_e8m0fnu],
    ids=str,
)
def test_what_is_no_float_is_never_averaged(dtype: torch.dtype) -> None:
    action = torch.ones(3).to(dtype)
    with pytest.raises(MergeError, match=r"w has dtype .* never averaged"):
        merge("average", [action, action], action)
    assert merge("take:side=ours", [action, action], action) is action


@pytest.mark.parametrize(
    ("text", "tensors", "base", "statistics", "says"),
    [
        ("average", [(2, 3), (3, 3)], None, [], r"different shapes: \[2, 3\] and \[3, 3\]"),
        ("ties", [(2,), (2,)], (3,), [], r"different shapes: \[2\] and \[3\]"),
        ("ties", [(2,), (2,)], None, [], "has no base, which ties needs"),
        ("karcher:task_vectors=true", [(2,), (2,)], None, [], "has no base"),
        ("fisher:normalize=false", [(2,), (2,)], None, [], "lacks the fisher"),
        ("fisher:normalize=false", [(2,), (2,)], None, [(2,)], "lacks the fisher"),
        ("fisher:normalize=false", [(2,), (2,)], None, [(2,), (3,)], "different shapes"),
        ("regmean", [(2, 2), (2, 2)], None, [(2, 2)], "lacks the gram"),
        ("regmean", [(2, 3), (2, 3)], None, [(2, 2), (2, 2)], "Gram matrix does not fit"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(
    text: str,
    tensors: list[tuple[int, ...]],
    base: tuple[int, ...] | None,
    statistics: list[tuple[int, ...]],
    says: str,
) -> None:
    inputs = Inputs.of(
        "w",
        [torch.ones(shape) for shape in tensors],
        None if base is None else torch.ones(base),
        [torch.ones(shape) for shape in statistics],
    )
    with pytest.raises(MergeError, match=says):
        merge_tensor(method(text, len(tensors)), inputs)


def test_dtypes_that_differ_are_refused() -> None:
    ones = torch.ones(2)
    with pytest.raises(MergeError, match="different dtypes: float32 and bfloat16"):
        merge("average", [ones, ones.bfloat16()])


def test_statistics_that_a_strategy_does_not_use_are_left_alone() -> None:
    first, second = grid(1, (2, 2), 2)
    inputs = Inputs.of("w", [first, second], None, [torch.ones(9), torch.ones(9)])
    assert torch.equal(
        merge_tensor(method("average", 2), inputs), merge("average", [first, second])
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_tensors_may_be_views(name: str) -> None:
    *tensors, base = grid(5, (6, 4), 3)
    views: list[Tensor] = [tensor.T.contiguous().T for tensor in (*tensors, base)]
    assert not views[0].is_contiguous()
    assert torch.equal(merge(name, views[:-1], views[-1]), merge(name, tensors, base))


def test_tied_names_with_the_same_content_merge_alike() -> None:
    """Deterministic strategies keep tied tensors tied whichever name they are merged under."""
    *tensors, base = grid(5, (6, 4), 3)
    for name in ("average", "ties:scope=tensor", "karcher", "sce"):
        embed, head = (
            merge_tensor(method(name, 2), replace(Inputs.of("w", tensors, base), name=tied))
            for tied in ("embed", "head")
        )
        assert torch.equal(embed, head)


def test_slices_are_loaded_on_the_chosen_device() -> None:
    """The meta device stands for an accelerator: it shows the way there and computes nothing."""
    tensor, _ = grid(1, (4,), 2)
    inputs = replace(Inputs.of("w", [tensor]), device=torch.device("meta"), allow_nan=True)
    (piece,) = inputs.pieces()
    loaded = piece.load()
    assert loaded.models[0].device.type == "meta"
    assert (loaded.start, loaded.stop) == (0, 4)


def test_content_is_that_of_the_raw_bytes() -> None:
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    assert content_of(tensor) == content_of(tensor.flatten())
    assert content_of(tensor) == content_of(tensor.T.contiguous().T)
    assert content_of(tensor) != content_of(tensor.double())
    assert content_of(torch.tensor(1.0)) == content_of(torch.tensor([1.0]))
    assert content_of(torch.empty(0)) == content_of(torch.empty(0, dtype=torch.int8))


def test_rows_are_output_units() -> None:
    assert [rows(shape) for shape in [(), (7,), (3, 4), (3, 4, 5), (0, 4)]] == [
        (1, 1),
        (1, 7),
        (3, 4),
        (3, 20),
        (0, 0),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("base_model.model.q_proj.lora_A.weight", None),
        ("encoder.attention.ia3_l", 1),
        ("model.q_proj.weight", None),
        ("explorations.weight", None),
    ],
)
def test_adapters_have_a_neutral_element(name: str, value: int | None) -> None:
    assert identity_value(name) == value
