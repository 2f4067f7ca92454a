"""Exactly k are kept, ties by name and index, whatever the slices, dtypes and digits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.memory_model import MemoryModel
from git_theta.merge.kernels import topk, trimming
from git_theta.merge.kernels.prepass import task_vectors
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.kernels.thresholds import ALL, NONE, MagnitudeThreshold
from git_theta.merge.kernels.topk import select
from tests.support.merging import grid

fast = settings(max_examples=25)


def model(tensors: Sequence[torch.Tensor], slice_elements: int = 0) -> MemoryModel:
    """Tensors p00, p01, ... whose task vectors are the tensors."""
    return MemoryModel(
        [
            Inputs(
                f"p{n:02}", [tensor], torch.zeros_like(tensor), ("",), slice_elements=slice_elements
            )
            for n, tensor in enumerate(tensors)
        ]
    )


def kept(tensors: Sequence[torch.Tensor], count: int, **options: int) -> list[torch.Tensor]:
    found = select(model(tensors, **options), task_vectors, lambda *_: [count])
    return [
        found[f"p{n:02}"][0][0].keeps(tensor.abs().flatten(), 0).bool()
        for n, tensor in enumerate(tensors)
    ]


def expected(tensors: Sequence[torch.Tensor], count: int) -> list[torch.Tensor]:
    numbers = torch.cat([tensor.flatten() for tensor in tensors]).double().abs()
    order = torch.sort(numbers, descending=True, stable=True).indices[: max(0, count)]
    mask = torch.zeros(len(numbers), dtype=torch.bool)
    mask[order] = True
    return list(mask.split([tensor.numel() for tensor in tensors]))


def same(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("digit", [8, 16])
@fast
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=4).filter(sum),
    share=st.floats(-0.1, 1.1),
)
def test_keeps_exactly_the_largest_and_of_equals_the_first(
    digit: int, seed: int, sizes: list[int], share: float
) -> None:
    tensors = [grid(seed + n, (size,), 1)[0] for n, size in enumerate(sizes)]
    count = math.floor(share * sum(sizes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topk, "_FEW", 0 if digit == 16 else 1 << 16)
        assert same(kept(tensors, count), expected(tensors, count))


@fast
@given(seed=st.integers(0, 2**32), count=st.integers(0, 200))
def test_full_precision_numbers_are_told_apart(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(70, generator=generator) for _ in range(3)]
    assert same(kept(tensors, count), expected(tensors, count))


def test_float64_and_float32_are_compared_exactly() -> None:
    """The threshold is a float64 between neighbouring float32 numbers."""
    near = torch.tensor([1.0, 1.0 + 2**-23], dtype=torch.float32)
    fine = torch.tensor([1.0 + 2**-25, 1.0 + 2**-24, 1.0], dtype=torch.float64)
    for count in range(6):
        assert same(kept([near, fine], count), expected([near, fine], count))


def test_bf16_deltas_full_of_ties_keep_exactly_k() -> None:
    generator = torch.Generator().manual_seed(0)
    base = (torch.randn(256, 256, generator=generator) * 0.02).bfloat16()
    tuned = (base.float() + torch.randn(256, 256, generator=generator) * 2e-4).bfloat16()
    inputs = Inputs("w", [tuned], base, ("",))
    delta = tuned.float() - base.float()
    assert len(delta.abs().unique()) < 1000, "or this tests no ties"
    count = 13_107

    threshold = select(MemoryModel([inputs]), task_vectors, lambda *_: [count])["w"][0][0]

    assert int(threshold.keeps(delta.abs().flatten(), 0).sum()) == count
    at_least = int((delta.abs() >= threshold.magnitude).sum())
    assert at_least > count, "a threshold alone would keep more"


def test_ties_are_cut_within_a_parameter_over_slices() -> None:
    """Slices hold 65536 elements; it is cut in the second slice of the second parameter."""
    ones = [torch.ones(100_000), torch.ones(200_000), torch.ones(100_000)]
    found = select(model(ones, 1 << 16), task_vectors, lambda *_: [180_000])
    assert [found[f"p{n:02}"][0][0].last for n in range(3)][1:] == [79_999, -1]
    assert [int(mask.sum()) for mask in kept(ones, 180_000)] == [100_000, 80_000, 0]
    assert int(kept(ones, 300_000)[1].sum()) == 200_000


def test_a_cut_keeps_the_same_in_any_slice() -> None:
    numbers = torch.tensor([2.0, 1, 1, 3, 1, 0, 1])
    threshold = MagnitudeThreshold(1.0, 2)
    whole = threshold.keeps(numbers, 0)
    assert whole.tolist() == [1, 1, 1, 1, 0, 0, 0]
    parts = [threshold.keeps(numbers[start : start + 2], start) for start in range(0, 7, 2)]
    assert torch.equal(torch.cat(parts), whole)
    assert threshold.trim(-numbers, 0).tolist() == [-2, -1, -1, -3, 0, 0, 0]


def test_all_and_none() -> None:
    numbers = torch.tensor([0.0, 1.0, torch.inf])
    assert ALL.keeps(numbers, 0).tolist() == [1, 1, 1]
    assert NONE.keeps(numbers, 0).tolist() == [0, 0, 0]


def test_several_ranks_are_found_at_once() -> None:
    tensors = grid(3, (50,), 1)
    found = select(model(tensors), task_vectors, lambda _, count: [0, 5, count])["p00"][0]
    assert (found[0], found[2]) == (NONE, ALL)
    assert int(found[1].keeps(tensors[0].abs(), 0).sum()) == 5


def test_a_model_without_elements_has_no_cuts() -> None:
    assert select(model([torch.empty(0)]), task_vectors, lambda *_: [1]) == {"p00": []}


class Counted:
    """A model that notes which parameters are read, in all passes."""

    def __init__(self, inner: MemoryModel) -> None:
        self.inner, self.read = inner, list[str]()

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def stream(self, names: Iterable[str]) -> Iterator[Inputs]:
        chosen = list(names)
        self.read += chosen
        return self.inner.stream(chosen)


def bf16_changes(seed: int, sizes: Sequence[int]) -> list[torch.Tensor]:
    """Differences of bf16 numbers: most end in 16 zero bits, those across 0 do not."""
    generator = torch.Generator().manual_seed(seed)
    bases = [torch.randn(size, generator=generator).bfloat16() * 0.02 for size in sizes]
    return [
        (base.float() + 5e-4 * torch.randn(len(base), generator=generator)).bfloat16().float()
        - base.float()
        for base in bases
    ]


@pytest.mark.parametrize("exceptions", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.7])
def test_bf16_changes_are_read_once_and_where_ties_end_again(
    exceptions: bool, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topk, "_FEW", 0)
    monkeypatch.setattr("git_theta.merge.kernels.tallies._MOST", 1 << 22 if exceptions else -1)
    tensors = bf16_changes(1, [700, 900, 500])
    counted = Counted(model(tensors))
    count = math.floor(share * 2100)
    found = select(counted, task_vectors, lambda *_: [count])
    masks = [
        found[f"p{n:02}"][0][0].keeps(tensor.abs(), 0).bool() for n, tensor in enumerate(tensors)
    ]
    assert same(masks, expected(tensors, count))
    passes = 1 if exceptions else 2
    assert len(counted.read) in (3 * passes, 3 * passes + 1)


def test_compiled_and_torch_give_the_same_trimmed_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    deltas = grid(3, (3000,), 3)
    for delta in deltas:
        delta[::7], delta[3::97], delta[5::89] = -0.0, math.nan, -math.inf
    limits = [MagnitudeThreshold(0.5, 1200), MagnitudeThreshold(1.0, -1), ALL]
    for weights in ([1.0, 0.3, 2.0], [0.0, 1.0, 0.5]):
        for normalize in (True, False):
            given = (deltas, limits, 100, weights, normalize)
            made = trimming.trimmed_mean(*given)
            with monkeypatch.context() as patch:
                patch.setattr(trimming, "are_compiled", lambda _: False)
                patch.setattr("git_theta.merge.kernels.reductions.are_compiled", lambda _: False)
                plain = trimming.trimmed_mean(*given)
            same_bits = made.view(torch.int32) == plain.view(torch.int32)
            assert bool((same_bits | (made.isnan() & plain.isnan())).all())


def test_compiled_and_torch_keep_and_rank_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    (delta,) = grid(7, (40, 75), 1)
    delta[0, ::7], delta[1, 3::9], delta[2, 5::8] = -0.0, math.nan, -math.inf
    values = torch.linspace(1, 0, 75)
    cuts = [(NONE, ALL), (MagnitudeThreshold(1.0, 1500), MagnitudeThreshold(0.25, 99))]
    cuts.append((MagnitudeThreshold(1.5, -1), MagnitudeThreshold(0.5, 2999)))
    for dropped, reached in cuts:
        given = (delta.flatten(), dropped, reached, 0)
        made, ranked = trimming.keep_between(*given), trimming.spread_by_rank(delta.abs(), values)
        with monkeypatch.context() as patch:
            patch.setattr(trimming, "are_compiled", lambda _: False)
            plain = trimming.keep_between(*given)
            assert torch.equal(ranked, trimming.spread_by_rank(delta.abs(), values))
        same_bits = made.view(torch.int32) == plain.view(torch.int32)
        assert bool((same_bits | (made.isnan() & plain.isnan())).all())
