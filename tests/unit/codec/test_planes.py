from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.codec import planes

# More than two blocks of words of every size, the last one partial.
LONG = 8 * ((1 << 18) // 8 * 2 + 12345)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, LONG, dtype=np.uint8)


@pytest.mark.parametrize("word", [1, 2, 4, 8])
def test_plane_k_holds_byte_k_of_every_word(word: int, noise: np.ndarray) -> None:
    split = planes.split(noise.data, word)
    assert len(split) == word
    for k, plane in enumerate(split):
        assert plane.flags.c_contiguous
        np.testing.assert_array_equal(plane, noise[k::word])


@pytest.mark.parametrize("word", [1, 2, 4, 8])
def test_join_undoes_split(word: int, noise: np.ndarray) -> None:
    joined = planes.join(planes.split(noise, word))
    assert joined.flags.c_contiguous
    np.testing.assert_array_equal(joined, noise)


@pytest.mark.parametrize(("word", "exponent"), [(2, 1), (2, 8), (4, 8), (8, 11), (8, 63)])
def test_the_sign_is_moved_below_the_exponent(word: int, exponent: int, noise: np.ndarray) -> None:
    split = planes.split(noise, word, exponent)
    words = np.stack(split, axis=1).reshape(-1).view(f"<u{word}")
    original, high = noise.view(f"<u{word}"), 8 * word - 1
    np.testing.assert_array_equal(words >> (high - exponent) & 1, original >> high)
    np.testing.assert_array_equal(
        words >> (high + 1 - exponent), original >> (high - exponent) & ((1 << exponent) - 1)
    )
    np.testing.assert_array_equal(planes.join(split, exponent), noise)


@given(words=st.sampled_from([1, 2, 4, 8]), count=st.integers(0, 9), seed=st.integers(0, 99))
def test_short_arrays_survive(words: int, count: int, seed: int) -> None:
    data = np.random.default_rng(seed).bytes(words * count)
    assert planes.join(planes.split(data, words)).tobytes() == data


def test_planes_of_single_bytes_are_not_copied(noise: np.ndarray) -> None:
    (plane,) = planes.split(noise, 1)
    assert np.shares_memory(plane, noise)


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_unaligned_data_is_split(offset: int, noise: np.ndarray) -> None:
    data = noise[offset : offset + 4000]
    np.testing.assert_array_equal(planes.join(planes.split(data.data, 4)), data)


@pytest.mark.parametrize("word", [1, 2, 4, 8])
def test_short_data_is_its_own_sample(word: int) -> None:
    data = np.arange(8 * 100, dtype=np.uint32).astype(np.uint8)
    np.testing.assert_array_equal(planes.sample(data, word), data)


def test_a_sample_is_whole_words_from_start_to_end() -> None:
    count = 3 * planes.SAMPLE_WORDS * planes.SAMPLE_BLOCKS
    words = np.arange(count, dtype="<u4")
    sample = planes.sample(words.view(np.uint8), 4).view("<u4")
    assert sample.size == planes.SAMPLE_WORDS * planes.SAMPLE_BLOCKS
    assert sample[0] == 0
    assert sample[-1] == count - 1
    steps = np.unique(np.diff(sample))
    assert steps[0] == 1
    assert np.ptp(steps[1:]) <= 1
