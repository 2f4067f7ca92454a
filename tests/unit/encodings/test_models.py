from __future__ import annotations

import numpy as np
import pytest

from git_theta.core.dtypes import dtype
from git_theta.core.kernels import MAX_CONTEXTS, TOTAL
from git_theta.encodings import models
from git_theta.errors import CorruptObjectError


def drifted(count: int, size: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Words with exponents like those of weights, and where they were before."""
    rng = np.random.default_rng(seed)
    old = (rng.standard_normal(count) * 0.04).astype(np.float32).view("<u4")
    old = (old >> 16).astype("<u2") if size == 2 else old
    return old + rng.integers(0, 40, count).astype(old.dtype), old


@pytest.mark.parametrize("count", [1, 100, 5000, 300_000])
@pytest.mark.parametrize("size", [2, 4])
def test_a_model_survives_as_bytes(count: int, size: int) -> None:
    model = models.fit(*drifted(count, size), 8 * size - 9).model
    stored = models.to_bytes(model)
    found = models.from_bytes(stored, size)
    assert (found.shift, found.lanes) == (model.shift, model.lanes)
    np.testing.assert_array_equal(found.contexts, model.contexts)
    np.testing.assert_array_equal(found.frequencies, model.frequencies)
    np.testing.assert_array_equal(found.literal_values, model.literal_values)
    assert models.to_bytes(found) == stored


def test_contexts_have_words_enough_and_split_where_keys_do() -> None:
    new, old = drifted(300_000)
    model = models.fit(new, old, 7).model
    contexts = model.contexts[(old >> 7) & 255]
    counts = np.bincount(contexts)
    assert counts.size == len(model.frequencies) > 5
    assert counts.min() >= 2048
    assert (np.diff(model.contexts) >= 0).all()


def test_there_are_not_more_contexts_than_a_frame_may_have() -> None:
    old = np.repeat(np.arange(256, dtype="<u2") << 8, 3000)
    assert len(models.fit(old, old, 8).model.frequencies) <= MAX_CONTEXTS


@pytest.mark.parametrize("seed", range(20))
def test_frequencies_add_up_and_none_that_is_needed_is_missing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # From one token to all of them, with counts from equal to far apart.
    counts = np.floor(np.exp(rng.random((4, 144)) * rng.integers(0, 20))).astype(np.int64)
    counts[rng.random(counts.shape) < rng.random()] = 0
    counts[:, seed] = 1
    found = models._frequencies(counts)
    assert (found.sum(axis=1) == TOTAL).all()
    np.testing.assert_array_equal(found > 0, counts > 0)


def test_many_equal_tokens_leave_room_for_rare_ones() -> None:
    counts = np.ones((1, 144), np.int64)
    counts[0, :44] = 1 << 40
    found = models._frequencies(counts)
    assert found.sum() == TOTAL
    assert found.min() >= 1


def test_every_code_of_a_frequency_is_read_as_it_is_written() -> None:
    codes = np.arange(145)
    np.testing.assert_array_equal(models._CODES[models._EXPANDED[codes]], codes)
    exact = np.arange(TOTAL + 1)
    short = models._EXPANDED[models._CODES[exact]]
    assert (short <= exact).all()
    assert (exact - short <= exact / 16).all()


def test_lanes_cost_little_and_are_many_where_they_may_be() -> None:
    small, large = (models.fit(*drifted(count), 7) for count in (600, 1 << 20))
    assert small.model.lanes <= 2
    assert large.model.lanes >= 1024
    for each in (small, large):
        size = 2 * each.room + each.raw_bits // 8
        assert 3 * each.model.lanes <= 0.01 * size + 3


@pytest.mark.parametrize(
    ("name", "word", "shift"),
    [("BF16", 2, 7), ("F32", 4, 23), ("F64", 8, 52), ("I8", 1, 0), ("I32", 4, 24), ("F32", 1, 0)],
)
def test_the_key_is_the_exponent_of_a_float(name: str, word: int, shift: int) -> None:
    assert models.key_shift(dtype(name), word) == shift


def test_what_is_no_model_is_refused() -> None:
    stored = models.to_bytes(models.fit(*drifted(5000), 7).model)
    for length in range(len(stored)):
        with pytest.raises(CorruptObjectError, match="malformed model"):
            models.from_bytes(stored[:length], 2)


@pytest.mark.parametrize("steps", [(5, 1), (9, 3), (300, 7), (70_000, 1)])
@pytest.mark.parametrize("count", [1, 40, 3000])
def test_literals_are_the_most_common_differences(steps: tuple[int, int], count: int) -> None:
    rng = np.random.default_rng(count)
    old = rng.integers(0, 1 << 31, count).astype("<u4")
    new = old + (rng.integers(0, steps[0], count) ** 2 // steps[1]).astype("<u4")
    found = models._common(new, old)
    differences = 2 * (new - old).astype(np.int64)
    counts = np.bincount(differences[differences < 1 << 16], minlength=1 << 16)
    best = np.sort(np.argsort(-counts, kind="stable")[:16])
    gain = counts[best].sum() - counts[:16].sum()
    if gain < count / 64:
        assert found is None
    else:
        assert found is not None
        np.testing.assert_array_equal(found.values, best)
