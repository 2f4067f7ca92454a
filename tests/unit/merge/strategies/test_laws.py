"""The laws that need no oracle, for every strategy that they hold for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from git_theta.merge.kernels.slices import Inputs
from tests.support.merging import grid, merge, merge_model

LINEAR = ["average", "task_arithmetic", "model_stock", "model_stock:filter_wise=true"]
SPARSE = [
    "ties:density=0.3",
    "ties:density=0.3,scope=tensor",
    "dare_linear",
    "dare_ties",
    "della",
    "della_linear",
    "breadcrumbs",
    "breadcrumbs_ties",
    "sce:select_topk=0.5",
    "magmax",
    "smear",
]
SPHERES = [
    "multislerp",
    "karcher",
    "multislerp:task_vectors=true",
    "karcher:task_vectors=true,row_wise=true",
]
ANY_NUMBER = [*LINEAR, *SPARSE, *SPHERES]
EVERY = [*ANY_NUMBER, "slerp", "nuslerp", "nuslerp:row_wise=true"]
# Those in which each contributor enters alike and by its task vector alone.
OF_TASK_VECTORS = ["task_arithmetic", *SPARSE, *LINEAR[2:], *SPHERES[2:]]

# Random masks depend on the contributors' content hashes: given, so that they stay the same.
SAME_MASKS = ("a", "b")

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 9), max_size=3).map(tuple)
fast = settings(max_examples=8)


def bits_equal(first: Tensor, second: Tensor) -> bool:
    """Whether the bits are the same, those of NaN and of zeros included."""
    words = {4: torch.int32, 8: torch.int64, 2: torch.int16}[first.element_size()]
    return first.shape == second.shape and torch.equal(first.view(words), second.view(words))


def gaussian(seed: int, shape: Sequence[int], number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tuple(shape), generator=generator) for _ in range(number)]


@pytest.mark.parametrize("text", ANY_NUMBER)
@fast
@given(seed=seeds, shape=shapes, number=st.integers(2, 4))
def test_permuting_the_contributors_changes_no_bit(
    text: str, seed: int, shape: tuple[int, ...], number: int
) -> None:
    *contributors, base = gaussian(seed, shape, number + 1)
    merged = merge(text, contributors, base)
    assert bits_equal(merge(text, contributors[::-1], base), merged)
    assert bits_equal(merge(text, [*contributors[1:], contributors[0]], base), merged)


@pytest.mark.parametrize("text", ["ties:density=0.4", "karcher", "average", "dare_ties"])
def test_permuting_weighted_contributors_changes_no_bit(text: str) -> None:
    joint = "," if ":" in text else ":"
    *contributors, base = gaussian(1, (6, 7), 4)
    weights = [0.3, 1.7, 0.9]

    def merged(order: Sequence[int]) -> Tensor:
        listed = ",".join(str(weights[place]) for place in order)
        chosen = [contributors[place] for place in order]
        return merge(f"{text}{joint}weight=[{listed}]", chosen, base)

    first = merged((0, 1, 2))
    assert all(bits_equal(merged(order), first) for order in itertools.permutations(range(3)))


def test_permuting_contributors_of_equal_content_changes_no_bit() -> None:
    """Equal tensors with other weights, or with other statistics, are told apart by those."""
    a, b = gaussian(3, (5, 5), 2)
    f, g, h = (tensor.abs() for tensor in gaussian(4, (5, 5), 3))
    merged = merge("fisher:weight=[1,2,3]", [a, a, b], None, [f, g, h])
    assert bits_equal(merge("fisher:weight=[3,2,1]", [b, a, a], None, [h, g, f]), merged)
    merged = merge("fisher", [a, a, b], None, [f, g, h])
    assert bits_equal(merge("fisher", [a, b, a], None, [g, h, f]), merged)


@pytest.mark.parametrize("text", EVERY)
@fast
@given(seed=seeds, rows=st.integers(1, 40), width=st.integers(1, 9), step=st.integers(1, 50))
def test_slicing_changes_no_bit(text: str, seed: int, rows: int, width: int, step: int) -> None:
    """Slices of elements are whole blocks, here shortened so that tensors have several."""
    from git_theta.merge.kernels import reductions, slices

    *contributors, base = grid(seed, (rows, width), 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "BLOCK", 16)
        patch.setattr(reductions, "BLOCK", 16)
        whole = merge(text, contributors, base, slice_elements=1 << 20)
        sliced = merge(text, contributors, base, slice_elements=step)
    assert bits_equal(sliced, whole)


@pytest.mark.parametrize("text", ANY_NUMBER)
@fast
@given(seed=seeds, sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_the_order_of_parameters_changes_no_bit(text: str, seed: int, sizes: list[int]) -> None:
    model = [
        Inputs.of(
            f"layer.{place}", grid(seed + place, (size,), 2), grid(seed - place, (size,), 1)[0]
        )
        for place, size in enumerate(sizes)
    ]
    merged = merge_model(text, model)
    backwards = merge_model(text, model[::-1])
    assert all(bits_equal(merged[name], backwards[name]) for name in merged)


@pytest.mark.parametrize("text", [*OF_TASK_VECTORS, "average"])
@fast
@given(seed=seeds, shape=shapes, shift=st.integers(-32, 32))
def test_a_constant_added_to_every_input_shifts_the_output(
    text: str, seed: int, shape: tuple[int, ...], shift: int
) -> None:
    *contributors, base = grid(seed, shape, 3)
    merged = merge(text, contributors, base, contents=SAME_MASKS)
    shifted = [contributor + shift for contributor in contributors]
    moved = merge(text, shifted, base + shift, contents=SAME_MASKS)
    torch.testing.assert_close(moved, merged + shift, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("text", OF_TASK_VECTORS)
@fast
@given(seed=seeds, shape=shapes, scale=st.sampled_from([0.25, 2.0, 64.0]))
def test_scaling_every_task_vector_scales_the_result_s(
    text: str, seed: int, shape: tuple[int, ...], scale: float
) -> None:
    *deltas, base = grid(seed, shape, 3)
    zero = torch.zeros_like(base)
    merged = merge(text, deltas, zero, contents=SAME_MASKS)
    scaled = merge(text, [scale * delta for delta in deltas], zero, contents=SAME_MASKS)
    torch.testing.assert_close(scaled, scale * merged, rtol=1e-5, atol=1e-5)


IDENTITIES = [
    "average",
    "task_arithmetic",
    "ties:density=1",
    "dare_linear:density=1",
    "dare_ties:density=1",
    "della:density=1,epsilon=0",
    "breadcrumbs:density=1,gamma=0",
    "breadcrumbs_ties:density=1,gamma=0",
    "sce",
    "magmax",
    "multislerp",
    "karcher",
    "karcher:task_vectors=true,row_wise=true",
]


@pytest.mark.parametrize("text", IDENTITIES)
@fast
@given(seed=seeds, shape=shapes)
def test_one_contributor_gives_itself(text: str, seed: int, shape: tuple[int, ...]) -> None:
    alone, base = grid(seed, shape, 2)
    torch.testing.assert_close(merge(text, [alone], base), alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("text", [*IDENTITIES, "slerp", "nuslerp", "model_stock"])
@fast
@given(seed=seeds, shape=shapes)
def test_equal_contributors_give_themselves(text: str, seed: int, shape: tuple[int, ...]) -> None:
    twin, base = grid(seed, shape, 2)
    if text in ("task_arithmetic", "dare_linear:density=1", "breadcrumbs:density=1,gamma=0"):
        text += "," if ":" in text else ":"
        text += "lambda=0.5"
    torch.testing.assert_close(merge(text, [twin, twin], base), twin, rtol=1e-6, atol=1e-6)


@fast
@given(seed=seeds, shape=shapes)
def test_ties_of_agreeing_task_vectors_without_trimming_is_the_mean(
    seed: int, shape: tuple[int, ...]
) -> None:
    *deltas, base = grid(seed, shape, 4)
    contributors = [base + delta.abs() + 0.125 for delta in deltas]
    torch.testing.assert_close(
        merge("ties:density=1", contributors, base), merge("average", contributors)
    )


@fast
@given(seed=seeds, shape=shapes, t=st.floats(0, 1))
def test_slerp_is_symmetric(seed: int, shape: tuple[int, ...], t: float) -> None:
    first, second = grid(seed, shape, 2)
    there = merge(f"slerp:t={t!r}", [first, second])
    back = merge(f"slerp:t={1 - t!r}", [second, first])
    torch.testing.assert_close(there, back, rtol=1e-5, atol=1e-5)


@fast
@given(seed=seeds, shape=shapes)
def test_slerp_reaches_both_ends(seed: int, shape: tuple[int, ...]) -> None:
    first, second = grid(seed, shape, 2)
    torch.testing.assert_close(merge("slerp:t=0", [first, second]), first)
    torch.testing.assert_close(merge("slerp:t=1", [first, second]), second)


@fast
@given(seed=seeds, number=st.integers(1, 4))
def test_equal_statistics_give_the_mean(seed: int, number: int) -> None:
    contributors = grid(seed, (4, 6), number)
    mean = merge("average", contributors)
    information = grid(seed, (4, 6), 1)[0].abs()
    features = grid(seed, (20, 6), 1)[0]
    close = {"rtol": 1e-5, "atol": 1e-5}
    for text in ("fisher", "fisher:normalize=false,floor=0"):
        torch.testing.assert_close(
            merge(text, contributors, None, [information] * number), mean, **close
        )
    grams = [features.T @ features] * number
    torch.testing.assert_close(merge("regmean", contributors, None, grams), mean, **close)


@fast
@given(seed=seeds, shape=shapes, dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_reverting_an_applied_change_restores_what_was(
    seed: int, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """As revert does: base C, sides C's parent P and the present X + (C - P) give X."""
    parent, change, present = gaussian(seed, shape, 3)
    parent, changed = parent.to(dtype), (parent + 0.01 * change).to(dtype)
    applied = merge("task_arithmetic", [present.to(dtype), changed], parent)
    restored = merge("task_arithmetic", [applied, parent], changed)
    tolerance = 0.1 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(restored, present.to(dtype), rtol=tolerance, atol=tolerance)


def test_a_shard_merges_as_within_the_whole() -> None:
    """Strategies that look at one tensor, or at one element, know nothing of the file around it."""
    model = [Inputs.of(f"layer.{n}", grid(n, (5, 6), 2), grid(-n, (5, 6), 1)[0]) for n in range(4)]
    for text in [*ANY_NUMBER[1:], "average"]:
        if text in ("ties:density=0.3", "smear"):
            continue
        together = merge_model(text, model)
        apart = {inputs.name: merge_model(text, [inputs])[inputs.name] for inputs in model}
        assert all(bits_equal(together[name], apart[name]) for name in together), text


def test_random_strategies_drop_other_elements_under_another_name_or_seed() -> None:
    *contributors, base = gaussian(1, (8, 8), 3)
    first = merge("dare_linear", contributors, base)
    assert not torch.equal(merge("dare_linear:seed=1", contributors, base), first)
    renamed = replace(Inputs.of("w", contributors, base), name="v")
    assert not torch.equal(merge_model("dare_linear", [renamed])["v"], first)
