from __future__ import annotations

import numpy as np
import pytest

from git_theta.codec import Frame, encode_frame
from git_theta.core.dtypes import dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings.sparse import ENCODING
from git_theta.errors import CorruptObjectError

F32 = Geometry(dtype("F32"))


def flat(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(values.tobytes(), np.uint8)


def round_trip(raw: np.ndarray, base: np.ndarray, geometry: Geometry = F32) -> Encoded:
    encoded = ENCODING.encode(raw, base, geometry)
    assert encoded is not None
    decoded = ENCODING.decode(encoded, base, geometry, raw.size)
    np.testing.assert_array_equal(decoded, raw)
    return encoded


def stored(raw: np.ndarray, base: np.ndarray, geometry: Geometry = F32) -> int:
    encoded = round_trip(raw, base, geometry)
    frame = Frame(2, geometry.dtype.name, raw.size, "0" * 64, "1" * 64, encoded)
    return sum(map(len, encode_frame(frame)))


def test_gaps_and_differences() -> None:
    base = np.zeros(1000, "<i4")
    new = base.copy()
    new[[3, 4, 300]] = 1, -1, 100
    encoded = round_trip(flat(new), flat(base), Geometry(dtype("I32")))
    gaps, differences = encoded.parts
    assert bytes(gaps.data) == bytes([3, 0, 255, 40])
    assert np.frombuffer(differences.data, "<u4").tolist() == [2, 1, 200]


def test_no_change_is_no_words() -> None:
    raw = flat(np.arange(1000.0))
    encoded = round_trip(raw, raw)
    assert [part.nbytes for part in encoded.parts] == [0, 0]


@pytest.mark.parametrize("position", [0, 1, 12345, (64 << 20) // 4 - 1])
def test_one_element_of_64_mib_takes_less_than_300_bytes(position: int) -> None:
    base = np.ones((64 << 20) // 4, np.float32)
    new = base.copy()
    new[position] = 0.3
    assert stored(flat(new), flat(base)) < 300


def test_one_of_a_thousand_takes_three_bytes_each() -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal(1 << 20, dtype=np.float32)
    new = base.copy()
    changed = rng.choice(base.size, base.size // 1000, replace=False)
    new[changed] = np.nextafter(base[changed], np.float32(np.inf))
    assert stored(flat(new), flat(base)) < 3 * changed.size + 300


@pytest.mark.parametrize(("share", "applies"), [(0.09, True), (0.11, False)])
def test_it_applies_where_few_words_changed(share: float, applies: bool) -> None:
    base = np.zeros(1 << 19, np.uint8)
    new = (np.random.default_rng(0).random(base.size) < share).astype(np.uint8)
    assert (ENCODING.encode(new, base, Geometry(dtype("U8"))) is not None) == applies


@pytest.mark.parametrize("length", [4, 7, 4000, 4003, 2 << 20])
def test_a_base_of_another_length_serves_as_far_as_it_goes(length: int) -> None:
    raw = flat(np.random.default_rng(0).standard_normal(1 << 18))
    round_trip(raw[:length], raw[: length - length // 20])
    round_trip(raw[: length - length // 20], raw[:length])


def test_rows_of_zeros_that_were_added_cost_nothing() -> None:
    base = flat(np.random.default_rng(0).standard_normal(10_000, dtype=np.float32))
    raw = np.concatenate([base, np.zeros(40_000, np.uint8)])
    assert stored(raw, base) < 200


def test_a_base_that_is_much_shorter_is_no_use() -> None:
    raw = flat(np.random.default_rng(0).standard_normal(1000, dtype=np.float32))
    assert ENCODING.encode(raw, raw[:400], F32) is None


def test_without_a_base_there_is_nothing_to_change() -> None:
    raw = np.zeros(8, np.uint8)
    assert ENCODING.encode(raw, None, F32) is None
    with pytest.raises(CorruptObjectError, match="no base"):
        ENCODING.decode(Encoded(b"", (Part(1, b""), Part(4, b""))), None, F32, 8)


@pytest.mark.parametrize(
    ("params", "parts"),
    [
        (b"x", (Part(1, b""), Part(4, b""))),
        (b"", ()),
        (b"", (Part(1, b""),)),
        (b"", (Part(1, b""), Part(2, b""))),
        (b"", (Part(4, b""), Part(4, b""))),
        (b"", (Part(1, b""), Part(4, b""), Part(1, b""))),
        (b"", (Part(1, b"\0"), Part(4, b""))),
        (b"", (Part(1, b""), Part(4, bytes(4)))),
        (b"", (Part(1, b"\2"), Part(4, bytes(4)))),
        (b"", (Part(1, b"\xff"), Part(4, bytes(4)))),
    ],
)
def test_parts_that_do_not_fit_are_refused(params: bytes, parts: tuple[Part, ...]) -> None:
    with pytest.raises(CorruptObjectError):
        ENCODING.decode(Encoded(params, parts), np.zeros(8, np.uint8), F32, 8)
