from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.core.dtypes import dtype
from git_theta.encodings.zigzag import as_words, difference, fit, restore, word_size

SIZES = [1, 2, 4, 8]
FLOATS = [
    np.float64,
    np.float32,
    np.float16,
    ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn,
    ml_dtypes.float8_e5m2,
]


def bits(values: np.ndarray) -> np.ndarray:
    return as_words(values.view(np.uint8), values.dtype.itemsize)


@pytest.mark.parametrize(
    ("name", "length", "size"),
    [
        ("F32", 8, 4),
        ("F32", 7, 1),
        ("C128", 16, 8),
        ("C64", 4, 4),
        ("BF16", 2, 2),
        ("F8_E4M3", 3, 1),
        ("I64", 8, 8),
        ("BOOL", 1, 1),
        ("F4", 1, 1),
        ("unheard of", 5, 1),
    ],
)
def test_the_word_of_a_dtype(name: str, length: int, size: int) -> None:
    assert word_size(dtype(name), length) == size


@pytest.mark.parametrize("old", [0, 1, 0x7F, 0x80, 0xFF])
def test_every_pair_of_bytes_survives(old: int) -> None:
    new = np.arange(256, dtype=np.uint8)
    base = np.full_like(new, old)
    differences = difference(new, base)
    assert np.unique(differences).size == 256
    np.testing.assert_array_equal(restore(differences, base), new)


@given(
    size=st.sampled_from(SIZES),
    new=st.binary(min_size=24, max_size=24),
    old=st.binary(min_size=24, max_size=24),
)
def test_words_survive(size: int, new: bytes, old: bytes) -> None:
    ours, theirs = (as_words(np.frombuffer(data, np.uint8), size) for data in (new, old))
    differences = difference(ours, theirs)
    assert differences.dtype == f"<u{size}"
    np.testing.assert_array_equal(restore(differences, theirs), ours)


@pytest.mark.parametrize("size", SIZES)
def test_integers_are_counted_in_zigzag_and_wrap(size: int) -> None:
    top = (1 << 8 * size) - 1
    new = np.array([5, 6, 4, 7, 3, 0, top], dtype=f"<u{size}")
    old = np.array([5, 5, 5, 5, 5, top, 0], dtype=f"<u{size}")
    assert difference(new, old).tolist() == [0, 2, 1, 4, 3, 2, 1]


@pytest.mark.parametrize("float_type", FLOATS)
def test_neighbouring_floats_differ_by_one_step(float_type: type) -> None:
    values = np.array([-2, -1, -0.5, 0.5, 1, 2], float_type)
    larger = np.nextafter(values, values * np.array(2, float_type))
    assert difference(bits(larger), bits(values)).tolist() == [2] * 6
    assert difference(bits(values), bits(larger)).tolist() == [1] * 6


@pytest.mark.parametrize("float_type", FLOATS)
def test_decay_has_one_sign_whatever_the_signs_of_the_weights(float_type: type) -> None:
    weights = np.random.default_rng(0).standard_normal(1000).astype(float_type)
    decayed = (weights * np.array(0.875, float_type)).astype(float_type)
    odd = difference(bits(decayed), bits(weights)) & 1
    assert odd.sum() == np.count_nonzero(bits(decayed) != bits(weights)) > 500


@pytest.mark.parametrize("size", SIZES)
def test_inputs_are_left_as_they_are(size: int) -> None:
    # Read-only inputs: a write would raise.
    new, old = (as_words(np.frombuffer(bytes(range(s, s + 64)), np.uint8), size) for s in (0, 99))
    differences = difference(new, old)
    differences.flags.writeable = False
    np.testing.assert_array_equal(restore(differences, old), new)


def test_a_base_is_cut_or_continued_with_zeros() -> None:
    base = np.array([1, 2, 3], np.uint8)
    assert fit(base, 2).tolist() == [1, 2]
    assert fit(base, 3).tolist() == [1, 2, 3]
    assert fit(base, 5).tolist() == [1, 2, 3, 0, 0]
