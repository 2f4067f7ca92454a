"""Sketches: alike for what is nearly the same, unlike for everything else."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from git_theta.checkpoint.sketch import resembles, sketch
from git_theta.core.dtypes import dtype

F32 = dtype("F32")


def _weights(seed: int = 0, count: int = 1 << 16) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype("f4")


def _common(one: np.ndarray, other: np.ndarray, *names: str) -> int:
    kinds = [dtype(name) for name in names or ("F32", "F32")]
    sketches = [
        set(sketch(array.tobytes(), kind)) for array, kind in zip((one, other), kinds, strict=True)
    ]
    return len(set.intersection(*sketches))


@pytest.mark.parametrize(("noise", "least"), [(0.01, 1.0), (0.1, 0.9)])
def test_noise_on_the_weights_leaves_a_number(noise, least):
    found = [
        _common(_weights(seed), _weights(seed) + noise * _weights(seed + 1000)) > 0
        for seed in range(60)
    ]
    assert sum(found) >= least * len(found)


def test_other_weights_have_nothing_in_common():
    sketches = [sketch(_weights(seed, 1 << 14).tobytes(), F32) for seed in range(300)]
    numbers = [number for each in sketches for number in each]
    assert len(set(numbers)) == len(numbers) > 1750


def test_a_cast_a_scaled_and_a_pruned_copy_have_most_in_common():
    weights = _weights()
    assert _common(weights, weights.astype(ml_dtypes.bfloat16), "F32", "BF16") >= 4
    assert _common(weights, weights.astype("f2"), "F32", "F16") >= 5
    assert _common(weights, weights * np.float32(0.37)) >= 5
    pruned = np.where(abs(weights) < np.median(abs(weights)), 0, weights)
    assert _common(weights, pruned) == 6


def test_what_grew_or_was_cut_has_the_first_words_in_common():
    assert _common(_weights(), np.concatenate([_weights(), _weights(1)])) == 3
    assert _common(_weights(), _weights()[:20000]) >= 3


def test_integers_of_one_width_are_compared_with_each_other_alone():
    packed = np.random.default_rng(0).integers(0, 1 << 32, 1 << 15, "u4")
    assert _common(packed, packed, "I32", "I32") == 6
    assert _common(packed, packed, "I32", "F32") == 0
    assert _common(packed, packed, "U8", "F32") == 0


@pytest.mark.parametrize(
    "plain",
    [
        np.zeros(1 << 15, "f4"),
        np.ones(1 << 15, "f4"),
        np.arange(1 << 15, dtype="f4"),
        _weights(0, (1 << 14) - 1),
    ],
    ids=["zeros", "ones", "counter", "small"],
)
def test_what_has_no_variety_or_is_small_has_no_sketch(plain):
    assert sketch(plain.tobytes(), F32) == ()
    assert not resembles(plain.tobytes(), F32, ())


@pytest.mark.parametrize("name", ["F64", "C128", "F4", "F8_E4M3", "X_UNKNOWN", "BOOL"])
def test_bytes_of_every_dtype_and_any_length_are_taken(name):
    data = np.random.default_rng(0).bytes((1 << 18) + 3)
    numbers = sketch(data, dtype(name))
    assert len(numbers) == 6
    assert all(0 <= number < 1 << 63 for number in numbers)
