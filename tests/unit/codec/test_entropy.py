from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from git_theta.codec import entropy
from git_theta.errors import CorruptObjectError

MIB = 1 << 20


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, count, dtype=np.uint8)


def exponents(count: int) -> np.ndarray:
    values = np.random.default_rng(2).standard_normal(count, dtype=np.float32)
    return (values.view(np.uint32) >> 23).astype(np.uint8)


def rare_changes(count: int) -> np.ndarray:
    plane = np.zeros(count, np.uint8)
    plane[noise(count // 1000, 3).astype(np.int64) * (count // 256)] = 7
    return plane


def round_trip(plane: np.ndarray) -> tuple[int, int]:
    method, stored = entropy.pack(plane)
    assert entropy.is_possible(method, len(stored), plane.size)
    np.testing.assert_array_equal(entropy.unpack(method, memoryview(stored), plane.size), plane)
    return method, len(stored)


def test_noise_is_stored_raw_and_not_copied() -> None:
    plane = noise(MIB)
    method, stored = entropy.pack(plane)
    assert method == entropy.RAW
    assert np.shares_memory(np.frombuffer(stored, np.uint8), plane)
    assert round_trip(plane) == (entropy.RAW, MIB)


def test_exponents_come_near_their_entropy() -> None:
    plane = exponents(MIB)
    counts = np.bincount(plane)
    shares = counts[counts > 0] / plane.size
    entropy_bytes = -(shares * np.log2(shares)).sum() / 8 * plane.size
    method, stored = round_trip(plane)
    assert method == entropy.ZSTD
    # Huffman codes are 2.3 % above it; zstd's level 1 is 9 %.
    assert stored < 1.03 * entropy_bytes


def test_rare_changes_are_matched_not_only_huffman_coded() -> None:
    # A Huffman code cannot spend less than a bit on a byte.
    assert round_trip(rare_changes(MIB))[1] < MIB / 100


@pytest.mark.parametrize("count", [1, 2, 1000, MIB])
def test_a_constant_plane_is_one_byte(count: int) -> None:
    assert round_trip(np.full(count, 5, np.uint8)) == (entropy.CONSTANT, 1)


def test_equal_ends_do_not_make_a_constant() -> None:
    plane = np.zeros(100_000, np.uint8)
    plane[50_000] = 1
    assert round_trip(plane)[0] == entropy.ZSTD


def test_an_empty_plane_is_raw() -> None:
    assert round_trip(np.zeros(0, np.uint8)) == (entropy.RAW, 0)


@given(st.binary(max_size=300))
def test_no_plane_grows(data: bytes) -> None:
    assert round_trip(np.frombuffer(data, np.uint8))[1] <= len(data)


def test_what_the_sample_misses_is_not_stored_larger_than_it_is() -> None:
    # The sampled blocks are zeros (but for the ends), all else is noise.
    plane = noise(64 * MIB // 8)
    starts = np.linspace(0, plane.size - 4096, 64).astype(np.int64)
    for start in starts:
        plane[start : start + 4096] = 0
    plane[0] = 1
    assert round_trip(plane)[1] <= plane.size


def test_the_stored_bytes_do_not_depend_on_what_was_stored_before_or_on_the_thread() -> None:
    inputs = [exponents(MIB), rare_changes(MIB), exponents(3000), noise(MIB), rare_changes(5000)]
    expected = [(m, bytes(s)) for m, s in map(entropy.pack, inputs)]
    with ThreadPoolExecutor(4) as pool:
        found = [(m, bytes(s)) for m, s in pool.map(entropy.pack, inputs * 6)]
    assert found == expected * 6


def test_predictions_are_near_what_is_stored() -> None:
    for plane in (exponents(MIB), noise(MIB)):
        assert entropy.predict(plane[: MIB // 4]) == pytest.approx(
            round_trip(plane)[1] / MIB, rel=0.05
        )
    assert entropy.predict(np.zeros(0, np.uint8)) == 0
    assert entropy.predict(np.full(9, 1, np.uint8)) == 0


@pytest.mark.parametrize(
    ("method", "stored", "count"),
    [
        (0, 3, 4),
        (0, 5, 4),
        (1, 0, 4),
        (1, 4, 4),
        (1, 5, 4),
        (2, 0, 4),
        (2, 2, 4),
        (2, 1, 0),
        (3, 1, 4),
    ],
)
def test_impossible_planes_are_known(method: int, stored: int, count: int) -> None:
    assert not entropy.is_possible(method, stored, count)


def unpack_zstd(stored: bytes, count: int) -> None:
    entropy.unpack(entropy.ZSTD, memoryview(stored), count)


def test_a_zstd_frame_of_another_size_is_refused() -> None:
    stored = zstandard.ZstdCompressor().compress(bytes(1000))
    for count in (999, 1001):
        with pytest.raises(CorruptObjectError, match="does not decompress"):
            unpack_zstd(stored, count)


def test_a_zstd_frame_without_its_size_is_refused() -> None:
    stored = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    with pytest.raises(CorruptObjectError):
        unpack_zstd(stored, 1000)


def test_a_zstd_frame_that_lies_about_its_size_is_refused() -> None:
    # A claim of 1000 bytes (2-byte field: stored less 256) that the block does not honour.
    stored = bytearray(zstandard.ZstdCompressor().compress(bytes(1001)))
    field = stored.index((1001 - 256).to_bytes(2, "little"))
    stored[field : field + 2] = (1000 - 256).to_bytes(2, "little")
    with pytest.raises(CorruptObjectError):
        unpack_zstd(bytes(stored), 1000)


@pytest.mark.parametrize("extra", [b"\0", zstandard.ZstdCompressor().compress(b"")])
def test_nothing_may_follow_the_zstd_frame(extra: bytes) -> None:
    stored = zstandard.ZstdCompressor().compress(bytes(1000))
    with pytest.raises(CorruptObjectError):
        unpack_zstd(stored + extra, 1000)


def test_a_dictionary_is_refused() -> None:
    samples = [b"%d words of a sample to learn from %d" % (i, i * i) for i in range(2000)]
    dictionary = zstandard.train_dictionary(2048, samples)
    stored = zstandard.ZstdCompressor(dict_data=dictionary).compress(samples[0] * 5)
    with pytest.raises(CorruptObjectError):
        unpack_zstd(stored, len(samples[0] * 5))


@given(st.binary(min_size=1, max_size=60))
def test_arbitrary_bytes_are_refused(stored: bytes) -> None:
    with pytest.raises(CorruptObjectError):
        unpack_zstd(stored, 100)
