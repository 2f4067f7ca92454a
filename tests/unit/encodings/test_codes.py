from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.encodings.codes import ESCAPE, Codes, pair, unpair
from git_theta.errors import CorruptObjectError

PLENTY = 1 << 20


def words(values: list[int] | np.ndarray, size: int = 4) -> np.ndarray:
    return np.array(values, f"<u{size}")


def table(codes: Codes) -> list[int]:
    return np.frombuffer(codes.stored, "<u2").tolist()


def test_small_words_need_no_table() -> None:
    codes, escapes = Codes.choose(words([0, 1, 2, 14] * 24 + [15, 99, 1 << 30, 400]), PLENTY)
    assert codes.stored == b""
    assert escapes == pytest.approx(0.04)
    assert codes.encode(words([0, 14, 15, 1 << 31])).tolist() == [0, 14, ESCAPE, ESCAPE]


@pytest.mark.parametrize("size", [2, 4, 8])
def test_common_words_get_codes_in_ascending_order(size: int) -> None:
    sample = words([360, 239, 240, 359] * 25 + list(range(1000, 1020)), size)
    codes, escapes = Codes.choose(sample, PLENTY)
    assert table(codes) == sorted([239, 240, 359, 360, *range(1000, 1011)])
    assert escapes == pytest.approx(9 / 120)
    found = codes.encode(words([239, 240, 241, 1010, 1011, 65534, 65535], size))
    assert found.tolist() == [0, 1, 15, 14, 15, 15, 15]
    assert codes.decode(found, sample.dtype).tolist()[:2] == [239, 240]
    assert codes.decode(found, sample.dtype).dtype == sample.dtype


def test_single_bytes_have_tables_too() -> None:
    codes, escapes = Codes.choose(words([255, 200, 255, 200], 1), PLENTY)
    assert table(codes)[-2:] == [200, 255]
    assert escapes == 0
    assert codes.decode(codes.encode(words([200, 255, 7], 1)), np.dtype("u1"))[:2].tolist() == [
        200,
        255,
    ]


def test_large_words_are_never_common() -> None:
    codes, escapes = Codes.choose(words([1 << 20] * 50 + [65535] * 50), PLENTY)
    assert codes.stored == b""
    assert escapes == 1


def test_a_table_that_saves_less_than_it_takes_is_left_out() -> None:
    sample = words([100] * 20, 2)
    assert Codes.choose(sample, 20)[0].stored == b""
    assert Codes.choose(sample, 2000)[0].stored != b""
    assert Codes.choose(words([0] * 99 + [100], 2), PLENTY)[0].stored == b""


def test_tables_survive_in_frames() -> None:
    codes, _ = Codes.choose(words([500, 600, 700]), PLENTY)
    again = Codes.read(codes.stored, 4)
    assert again.stored == codes.stored
    sample = words([500, 600, 700, 800])
    np.testing.assert_array_equal(again.encode(sample), codes.encode(sample))
    assert Codes.read(b"", 4).stored == b""


@pytest.mark.parametrize(
    ("stored", "word"),
    [(b"\0", 4), (bytes(29), 4), (bytes(31), 4), (bytes(32), 4), (bytes(28) + b"\0\1", 1)],
)
def test_malformed_tables_are_refused(stored: bytes, word: int) -> None:
    with pytest.raises(CorruptObjectError, match="malformed table"):
        Codes.read(stored, word)


def test_the_first_of_a_pair_is_in_the_low_half() -> None:
    assert pair(np.array([1, 2, 15], np.uint8)).tolist() == [0x21, 0x0F]


@given(st.lists(st.integers(0, 15), max_size=50))
def test_pairs_survive(values: list[int]) -> None:
    codes = np.array(values, np.uint8)
    pairs = pair(codes)
    assert pairs.size == (codes.size + 1) // 2
    np.testing.assert_array_equal(unpair(pairs, codes.size), codes)
