from __future__ import annotations

import numpy as np
import pytest

from git_theta.codec import estimate
from git_theta.core.dtypes import dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings.delta import ENCODING
from git_theta.errors import CorruptObjectError
from tests.support.weights import NUMPY

PLAIN, NARROW, SPLIT = b"\0", b"\1", b"\2"
BLOCKS = 3 * (1 << 17) + 1000  # bytes: more than three blocks of every word


def geometry(name: str) -> Geometry:
    return Geometry(dtype(name))


def flat(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(values.tobytes(), np.uint8)


def round_trip(raw: np.ndarray, base: np.ndarray, name: str) -> Encoded:
    encoded = ENCODING.encode(raw, base, geometry(name))
    assert encoded is not None
    decoded = ENCODING.decode(encoded, base, geometry(name), raw.size)
    np.testing.assert_array_equal(decoded, raw)
    return encoded


def steps(name: str, count: int, spread: int) -> tuple[np.ndarray, np.ndarray]:
    """Random words, and words up to ``spread`` steps away."""
    rng, word = np.random.default_rng(0), dtype(name).word
    base = rng.integers(0, 1 << 6, count).astype(f"<u{word}")
    new = base + rng.integers(0, spread + 1, count).astype(f"<u{word}")
    return flat(new), flat(base)


@pytest.mark.parametrize("name", ["I64", "F32", "BF16", "I8"])
def test_small_differences_share_bytes(name: str) -> None:
    word = dtype(name).word
    encoded = round_trip(*steps(name, BLOCKS // word, 7), name)
    assert encoded.params == NARROW
    pairs, wide = encoded.parts
    assert (pairs.word, pairs.nbytes) == (1, (BLOCKS // word + 1) // 2)
    assert (wide.word, wide.nbytes) == (word, 0)


def test_the_first_of_a_pair_is_in_the_low_half() -> None:
    base = np.array([10, 10, 10], np.uint8)
    encoded = round_trip(np.array([11, 12, 9], np.uint8), base, "U8")
    assert bytes(encoded.parts[0].data) == bytes([0x42, 0x01])


def test_a_difference_that_does_not_fit_stands_apart() -> None:
    base = np.zeros(64, np.uint16)
    new = base.copy()
    new[[3, 40]] = 8, 1000
    encoded = round_trip(flat(new), flat(base), "I16")
    assert encoded.params == NARROW
    assert np.frombuffer(encoded.parts[1].data, "<u2").tolist() == [16, 2000]
    assert bytes(encoded.parts[0].data)[1] == 0xF0


@pytest.mark.parametrize("name", ["I64", "F32", "BF16", "I8"])
def test_large_differences_are_plain_words(name: str) -> None:
    encoded = round_trip(*steps(name, BLOCKS // dtype(name).word, 60), name)
    assert encoded.params == PLAIN
    (part,) = encoded.parts
    assert (part.word, part.nbytes) == (dtype(name).word, BLOCKS // dtype(name).word * part.word)


@pytest.mark.parametrize("name", ["F32", "I64", "I16"])
def test_common_differences_share_bytes_however_large(name: str) -> None:
    # As weight decay leaves them: two steps, with rows among them that changed at random.
    word, rng = dtype(name).word, np.random.default_rng(0)
    base = rng.integers(1000, 2000, (500, 100)).astype(f"<u{word}")
    new = base - rng.choice([120, 180], base.shape).astype(f"<u{word}")
    new[::9] = rng.integers(0, 1 << 15, new[::9].shape)
    encoded = round_trip(flat(new), flat(base), name)
    assert encoded.params[:1] == NARROW
    table = np.frombuffer(encoded.params[1:], "<u2")
    assert table.size == 15
    assert {239, 359} <= set(table.tolist())
    assert encoded.parts[1].nbytes <= new[::9].nbytes


@pytest.mark.parametrize(
    ("name", "limit"), [("U8", 1 / 8), ("BF16", 1 / 4), ("F32", 1 / 2), ("F64", 1 / 2)]
)
def test_the_share_that_has_no_code_decides(name: str, limit: float) -> None:
    rng, word = np.random.default_rng(0), dtype(name).word
    base = np.zeros(200_000, f"<u{word}")
    for share, form in ((0.95 * limit, NARROW), (1.05 * limit, PLAIN)):
        others = rng.integers(8, 1 << (8 * word - 1), base.size, base.dtype)
        new = np.where(rng.random(base.size) < share, others, 0).astype(base.dtype)
        assert round_trip(flat(new), flat(base), name).params == form


@pytest.mark.parametrize("length", [1, 2, 3, 4095, 4096, 4097, BLOCKS, BLOCKS + 1])
@pytest.mark.parametrize("spread", [3, 60])
def test_odd_lengths_survive(length: int, spread: int) -> None:
    for name in ("I8", "BF16"):
        raw, base = steps("I8", length, spread)
        round_trip(raw, base, name)


@pytest.mark.parametrize("base_length", [0, 1, 999, 1000, 200_000, 700_000])
def test_a_base_of_another_length_serves_as_far_as_it_goes(base_length: int) -> None:
    weights = np.random.default_rng(0).standard_normal(350_000).astype(np.float16)
    base = flat(weights + np.float16(0.001))[:base_length]
    encoded = round_trip(flat(weights), base, "F16")
    # Against zeros, the sign of a new float is told twice: a bit more than alone.
    alone = estimate([Part(2, flat(weights).data)])
    assert estimate(encoded.parts) <= 1.01 * alone + weights.size / 8


def fine_tune(name: str, count: int = 1 << 19) -> tuple[np.ndarray, np.ndarray]:
    """Weights after and before they moved by about the same, whatever their size."""
    rng, kind = np.random.default_rng(0), NUMPY[name]
    base = (rng.standard_normal(count) * 0.04).astype(np.float32)
    new = base + (rng.standard_normal(count) * 2e-5).astype(np.float32)
    return flat(new.astype(kind)), flat(base.astype(kind))


def test_a_fine_tune_is_a_twelfth_of_its_weights() -> None:
    raw, base = fine_tune("BF16")
    assert estimate(round_trip(raw, base, "BF16").parts) < 0.085 * raw.size


@pytest.mark.parametrize(("name", "saved"), [("BF16", 0.08), ("F16", 0.08)])
def test_small_weights_move_by_more_steps_and_are_stored_apart(name: str, saved: float) -> None:
    raw, base = fine_tune(name)
    encoded = round_trip(raw, base, name)
    assert encoded.params[:1] == SPLIT
    # The same words as integers are stored together.
    together = round_trip(raw, base, "I16")
    assert together.params[:1] != SPLIT
    assert estimate(encoded.parts) < (1 - saved) * estimate(together.parts)


def test_the_split_is_where_the_parameters_say() -> None:
    raw, base = fine_tune("BF16")
    encoded = round_trip(raw, base, "BF16")
    magnitudes = base.view("<u2") & 0x7FFF
    small = int(np.count_nonzero(magnitudes < int.from_bytes(encoded.params[1:3], "little")))
    assert 0.28 < small / magnitudes.size < 0.32
    counts = [part.nbytes // part.word for part in encoded.parts if part.word == 1]
    assert (small + 1) // 2 in counts


@pytest.mark.parametrize("case", ["F32", "short", "some rows", "one size"])
def test_words_stay_together_where_a_split_saves_nothing(case: str) -> None:
    name = "F32" if case == "F32" else "BF16"
    raw, base = fine_tune(name, 8191 if case == "short" else 1 << 16)
    if case == "some rows":
        chosen = np.repeat(np.random.default_rng(0).random(raw.size // 512) < 0.05, 512)
        raw = np.where(chosen, raw, base)
    if case == "one size":
        base = flat(np.full(1 << 16, 0x3C00, np.uint16))
    assert round_trip(raw, base, name).params[:1] in (PLAIN, NARROW)


@pytest.mark.parametrize("count", [1 << 13, (1 << 16) + 1, 100_001])
def test_a_split_of_odd_streams_survives(count: int) -> None:
    for seed in range(4):
        raw, base = fine_tune("F16", count)
        base = np.roll(base, 2 * seed)
        round_trip(raw, base, "F16")
    assert ENCODING.encode(*fine_tune("F16", count), geometry("F16")).params[:1] == SPLIT


def test_without_a_base_there_is_no_delta() -> None:
    raw = np.zeros(8, np.uint8)
    assert ENCODING.encode(raw, None, geometry("F32")) is None
    with pytest.raises(CorruptObjectError, match="no base"):
        ENCODING.decode(Encoded(PLAIN, (Part(4, bytes(8)),)), None, geometry("F32"), 8)


@pytest.mark.parametrize(
    ("params", "parts"),
    [
        (b"", (Part(2, bytes(8)),)),
        (b"\2", (Part(2, bytes(8)),)),
        (b"\0\0", (Part(2, bytes(8)),)),
        (b"\1\0", (Part(1, bytes(2)), Part(2, b""))),
        (PLAIN, ()),
        (PLAIN, (Part(1, bytes(8)),)),
        (PLAIN, (Part(2, bytes(6)),)),
        (PLAIN, (Part(2, bytes(10)),)),
        (PLAIN, (Part(2, bytes(8)), Part(2, b""))),
        (NARROW, (Part(2, bytes(8)),)),
        (NARROW, (Part(1, bytes(2)), Part(1, b""))),
        (NARROW, (Part(1, bytes(1)), Part(2, b""))),
        (NARROW, (Part(1, bytes(3)), Part(2, b""))),
        (NARROW, (Part(1, b"\xff\0"), Part(2, bytes(2)))),
        (NARROW, (Part(1, b"\x0f\0"), Part(2, bytes(4)))),
        (SPLIT, ()),
        (SPLIT + b"\1\0", (Part(2, b""), Part(2, bytes(8)))),
        (SPLIT + b"\1\0\1", (Part(2, bytes(8)),)),
        (SPLIT + b"\1\0\1" + PLAIN + PLAIN, (Part(2, bytes(8)),)),
        (SPLIT + b"\1\0\1" + PLAIN + PLAIN, (Part(2, b""), Part(2, bytes(8)))),
        (SPLIT + b"\0\0\1" + PLAIN + PLAIN, (Part(2, bytes(8)), Part(2, b""))),
        (SPLIT + b"\1\0\1" + PLAIN + PLAIN, (Part(2, bytes(8)), Part(2, b""), Part(2, b""))),
        (SPLIT + b"\1\0\2" + PLAIN + PLAIN, (Part(2, bytes(8)), Part(2, b""))),
        (SPLIT + b"\1\0\x09" + PLAIN, (Part(2, bytes(8)),)),
        (SPLIT + b"\1\0\1" + SPLIT + PLAIN, (Part(2, bytes(8)), Part(2, b""))),
        (SPLIT + b"\1\0\1" + NARROW + PLAIN, (Part(1, bytes(2)), Part(2, bytes(2)), Part(2, b""))),
    ],
)
def test_parts_that_do_not_fit_are_refused(params: bytes, parts: tuple[Part, ...]) -> None:
    with pytest.raises(CorruptObjectError, match=r"delta frame|malformed table"):
        ENCODING.decode(Encoded(params, parts), np.zeros(8, np.uint8), geometry("BF16"), 8)
