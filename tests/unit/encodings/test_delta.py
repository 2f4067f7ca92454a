from __future__ import annotations

import numpy as np
import pytest

from git_theta.codec import estimate
from git_theta.core.dtypes import dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings.delta import ENCODING
from git_theta.encodings.zigzag import difference, restore
from git_theta.errors import CorruptObjectError
from tests.support.weights import NUMPY

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
    # Against zeros, all that is told of a float is its size: a bit more than alone.
    alone = estimate([Part(2, flat(weights).data)])
    assert estimate(encoded.parts) <= 1.02 * alone + weights.size / 8


def fine_tune(name: str, count: int = 1 << 19) -> tuple[np.ndarray, np.ndarray]:
    """Weights after and before they moved by about the same, whatever their size."""
    rng, kind = np.random.default_rng(0), NUMPY[name]
    base = (rng.standard_normal(count) * 0.04).astype(np.float32)
    new = base + (rng.standard_normal(count) * 2e-5).astype(np.float32)
    return flat(new.astype(kind)), flat(base.astype(kind))


def test_a_fine_tune_is_a_twelfth_of_its_weights() -> None:
    raw, base = fine_tune("BF16")
    assert estimate(round_trip(raw, base, "BF16").parts) < 0.085 * raw.size


@pytest.mark.parametrize(("name", "saved"), [("BF16", 0.1), ("F16", 0.09), ("F32", 0.03)])
def test_the_size_of_a_weight_tells_of_its_change(name: str, saved: float) -> None:
    raw, base = fine_tune(name)
    apart = estimate(round_trip(raw, base, name).parts)
    # The same differences from words that say nothing.
    z = difference(*(data.view(f"<u{dtype(name).word}") for data in (raw, base)))
    words = restore(z, np.zeros_like(z))
    alone = round_trip(flat(words), flat(np.zeros_like(z)), f"I{8 * z.itemsize}")
    assert apart < (1 - saved) * estimate(alone.parts)


def test_a_step_that_changes_one_weight_in_a_hundred_is_next_to_nothing() -> None:
    rng = np.random.default_rng(0)
    base = (rng.standard_normal(1 << 19) * 0.04).astype(NUMPY["BF16"]).view("<u2")
    changed = rng.random(base.size) < 0.01
    new = base + changed * rng.choice([1, 0xFFFF], base.size).astype("<u2")
    assert estimate(round_trip(flat(new), flat(base), "BF16").parts) < 0.008 * 2 * base.size


def test_decayed_rows_have_literals_of_their_own() -> None:
    # Two steps, with rows among them that changed at random.
    rng = np.random.default_rng(0)
    base = rng.integers(1000, 2000, (500, 100)).astype("<u4")
    new = base - rng.choice([120, 180], base.shape).astype("<u4")
    new[::9] = rng.integers(0, 1 << 15, new[::9].shape)
    encoded = round_trip(flat(new), flat(base), "F32")
    literals = np.frombuffer(encoded.params[4 : 4 + 32], "<u2")
    assert {239, 359} <= set(literals.tolist())
    assert estimate(encoded.parts) < 0.2 * new.nbytes


@pytest.mark.parametrize("name", ["BF16", "F32", "I8"])
def test_what_is_not_what_was_coded_is_told(name: str) -> None:
    raw, base = steps(name, BLOCKS // dtype(name).word, 60)
    encoded = round_trip(raw, base, name)
    assert ENCODING.is_exact(encoded, base, geometry(name), raw)
    for place in (0, raw.size // 2, raw.size - 1):
        other = raw.copy()
        other[place] ^= 1
        assert not ENCODING.is_exact(encoded, base, geometry(name), other)


def test_without_a_base_there_is_no_delta() -> None:
    raw = np.zeros(8, np.uint8)
    assert ENCODING.encode(raw, None, geometry("F32")) is None
    with pytest.raises(CorruptObjectError, match="no base"):
        ENCODING.decode(SOUND, None, geometry("BF16"), 8)


# Four words that did not change: one lane, one context, token 0.
PARAMS, STATE = bytes([7, 0, 0, 0, 1, 255]), bytes([0, 0, 1, 0])
SOUND = Encoded(PARAMS, (Part(1, STATE), Part(1, b"")))
# Of token 0 and token 22, whose difference has two raw bits, half each.
LONG = bytes([7, 0, 0, 0, 23, 255, *[0] * 21, 128])


def test_the_parts_under_attack_are_sound() -> None:
    assert ENCODING.decode(SOUND, np.arange(8, dtype=np.uint8), geometry("BF16"), 8).tolist() == [
        *range(8)
    ]


@pytest.mark.parametrize(
    ("params", "parts"),
    [
        (PARAMS, ()),
        (PARAMS, (STATE,)),
        (PARAMS, (STATE, b"", b"")),
        (PARAMS, (STATE[:3], b"")),
        (PARAMS, (STATE + b"\0", b"")),
        (PARAMS, (STATE + b"\0\0", b"")),
        (PARAMS, (STATE, b"\0")),
        (PARAMS, (b"\1\0\1\0", b"")),
        (PARAMS, (b"\0\0\0\0", b"")),
        (PARAMS, (b"\xff\xff\xff\xff", b"")),
        (b"", (STATE, b"")),
        (PARAMS[:3], (STATE, b"")),
        (PARAMS[:-1], (STATE, b"")),
        (PARAMS + b"\0", (STATE, b"")),
        (b"\x10" + PARAMS[1:], (STATE, b"")),
        (PARAMS[:1] + b"\1" + PARAMS[2:], (STATE, b"")),
        (PARAMS[:1] + b"\x0d" + PARAMS[2:], (STATE * 8192, b"")),
        (PARAMS[:2] + b"\2" + PARAMS[3:], (STATE, b"")),
        (PARAMS[:2] + b"\1" + PARAMS[3:], (STATE, b"")),
        (PARAMS[:2] + b"\1\0" + bytes(32) + PARAMS[4:], (STATE, b"")),
        (PARAMS[:3] + b"\1" + PARAMS[4:], (STATE, b"")),
        (PARAMS[:3] + b"\1\0" + PARAMS[4:] * 2, (STATE, b"")),
        (PARAMS[:3] + b"\2\5\5" + PARAMS[4:] * 3, (STATE, b"")),
        (PARAMS[:3] + b"\x20" + bytes(range(1, 33)) + PARAMS[4:] * 33, (STATE, b"")),
        (PARAMS[:4] + b"\0", (STATE, b"")),
        (PARAMS[:4] + b"\2\xff\xff", (STATE, b"")),
        (PARAMS[:4] + b"\2\xff\0", (b"\1\0\1\0", b"")),
        (PARAMS[:4] + b"\2\xff\x90", (STATE, b"")),
        (PARAMS[:4] + b"\2\xff\xfe", (STATE, b"")),
        (PARAMS[:4] + b"\1\1", (STATE, b"")),
        (PARAMS[:4] + b"\x91" + bytes(144) + b"\xff", (STATE, b"")),
        (PARAMS[:4] + b"\x90" + bytes(143) + b"\xff", (STATE, b"")),
        (PARAMS[:4] + b"\x31" + bytes(48) + b"\xff", (STATE, b"")),
        (LONG, (b"\xff\xff\xff\xff", b"")),
        (LONG, (b"\xff\xff\xff\xff", b"\xff" * 9)),
    ],
)
def test_parts_that_do_not_fit_are_refused(params: bytes, parts: tuple[bytes, ...]) -> None:
    hostile = Encoded(params, tuple(Part(1, part) for part in parts))
    with pytest.raises(CorruptObjectError, match=r"delta frame|malformed model"):
        ENCODING.decode(hostile, np.zeros(8, np.uint8), geometry("BF16"), 8)


def test_wide_parts_are_refused() -> None:
    with pytest.raises(CorruptObjectError, match="other parts"):
        ENCODING.decode(
            Encoded(PARAMS, (Part(2, STATE), Part(1, b""))),
            np.zeros(8, np.uint8),
            geometry("BF16"),
            8,
        )
