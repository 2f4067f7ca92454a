from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.encodings.difference import WordType, fit
from git_theta.tensor import dtype

SIZES = [1, 2, 4, 8]


def all_words(bits: int) -> np.ndarray:
    return np.arange(1 << bits, dtype=f"<u{bits // 8}")


@pytest.mark.parametrize(
    ("name", "length", "expected"),
    [
        ("F32", 8, WordType(4, True)),
        ("F32", 7, WordType(1, False)),
        ("C128", 16, WordType(8, True)),
        ("C64", 4, WordType(4, True)),
        ("BF16", 2, WordType(2, True)),
        ("F8_E4M3", 3, WordType(1, True)),
        ("F8_E8M0", 3, WordType(1, False)),
        ("I64", 8, WordType(8, False)),
        ("U16", 2, WordType(2, False)),
        ("BOOL", 1, WordType(1, False)),
        ("F4", 1, WordType(1, False)),
        ("unheard of", 5, WordType(1, False)),
    ],
)
def test_the_word_of_a_dtype(name: str, length: int, expected: WordType) -> None:
    assert WordType.of(dtype(name), length) == expected


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("old", [0, 1, 0x7F, 0x80, 0xFF])
def test_every_pair_of_bytes_survives(old: int, ordered: bool) -> None:
    kind, new = WordType(1, ordered), all_words(8)
    base = np.full_like(new, old)
    difference = kind.difference(new, base)
    assert np.unique(difference).size == 256
    np.testing.assert_array_equal(kind.restore(difference, base), new)


@given(
    size=st.sampled_from(SIZES),
    ordered=st.booleans(),
    data=st.data(),
)
def test_words_survive(size: int, ordered: bool, data: st.DataObject) -> None:
    kind = WordType(size, ordered)
    pair = st.binary(min_size=8 * 3, max_size=8 * 3)
    new, old = (kind.words(np.frombuffer(data.draw(pair), np.uint8)) for _ in range(2))
    difference = kind.difference(new, old)
    assert difference.dtype == f"<u{size}"
    np.testing.assert_array_equal(kind.restore(difference, old), new)


@pytest.mark.parametrize("size", SIZES)
def test_integers_are_counted_in_zigzag_and_wrap(size: int) -> None:
    kind, top = WordType(size, False), (1 << 8 * size) - 1
    new = np.array([5, 6, 4, 7, 3, 0, top], dtype=f"<u{size}")
    old = np.array([5, 5, 5, 5, 5, top, 0], dtype=f"<u{size}")
    assert kind.difference(new, old).tolist() == [0, 2, 1, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "float_type",
    [
        np.float64,
        np.float32,
        np.float16,
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e5m2,
    ],
)
def test_neighbouring_floats_differ_by_one_across_zero_too(float_type: type) -> None:
    values = np.array([-2, -1, -0.5, 0.5, 1, 2], float_type)
    above = np.nextafter(values, np.array(100, float_type))
    size = values.dtype.itemsize
    kind = WordType(size, True)
    new, old = (kind.words(v.view(np.uint8)) for v in (above, values))
    assert kind.difference(new, old).tolist() == [2] * 6
    assert kind.difference(old, new).tolist() == [1] * 6
    zeros = kind.words(np.array([0.0, -0.0], float_type).view(np.uint8))
    assert kind.difference(zeros[:1], zeros[1:]).tolist() == [2]


def test_floats_are_ranked_by_value() -> None:
    words = np.random.default_rng(0).integers(0, 1 << 16, 5000).astype("<u2")
    values = words.view("<f2")
    finite = words[np.isfinite(values) & (values != 0)]
    ordered = finite[np.argsort(finite.view("<f2"), kind="stable")]
    steps = WordType(2, True).difference(ordered[1:], ordered[:-1])
    assert (steps % 2 == 0).all()  # zigzag of what is not negative


@pytest.mark.parametrize("size", SIZES)
def test_inputs_are_left_as_they_are(size: int) -> None:
    kind = WordType(size, True)
    new, old = (kind.words(np.frombuffer(bytes(range(s, s + 64)), np.uint8)) for s in (0, 100))
    difference = kind.difference(new, old)
    difference.flags.writeable = False
    kind.restore(difference, old)  # read-only inputs: a write would raise
    assert new.view(np.uint8).tobytes() == bytes(range(64))


def test_a_base_is_cut_or_continued_with_zeros() -> None:
    base = np.array([1, 2, 3], np.uint8)
    assert fit(base, 2).tolist() == [1, 2]
    assert fit(base, 3).tolist() == [1, 2, 3]
    assert fit(base, 5).tolist() == [1, 2, 3, 0, 0]
