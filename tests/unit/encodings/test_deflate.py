"""A deflated stream is rebuilt from what it inflates to and its tokens, whatever wrote it."""

from __future__ import annotations

import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.core.dtypes import DEFLATED, dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings.deflate import ENCODING
from git_theta.encodings.deflate_blocks import read_tokens, write_tokens
from git_theta.errors import CorruptObjectError
from tests.support.weights import gaussian, stored

F32 = Geometry(dtype(f"{DEFLATED}F32"))


def deflated(data: bytes, level: int = 6, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> np.ndarray:
    deflater = zlib.compressobj(level, zlib.DEFLATED, -15, 8, strategy)
    return np.frombuffer(deflater.compress(data) + deflater.flush(), np.uint8)


def again(stream: np.ndarray, plain: bytes) -> bytes:
    tokens = read_tokens(stream, 1 << 30)
    assert tokens is not None
    return write_tokens(np.frombuffer(plain, np.uint8), tokens, stream.size).tobytes()


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.parametrize(
    "plain",
    [
        gaussian((200, 300), "F32", 0).tobytes(),
        gaussian((200, 300), "BF16", 0).tobytes(),
        b"the same words, " * 500 + bytes(1000),
        bytes(100_000),
        b"x",
    ],
    ids=["fp32", "bf16", "text", "zeros", "one byte"],
)
def test_every_stream_of_zlib_is_written_again(plain, level):
    for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE):
        stream = deflated(plain, level, strategy)
        assert again(stream, plain) == stream.tobytes()


@given(st.binary(max_size=600), st.integers(1, 9), st.sampled_from([1, 2, 3, 4]))
@settings(max_examples=150)
def test_any_bytes_are_written_again(plain, level, strategy):
    stream = deflated(plain, level, strategy)
    if stream[0] & 6:  # noise is not coded
        assert again(stream, plain) == stream.tobytes()


@given(st.binary(min_size=1, max_size=300))
@settings(max_examples=150)
def test_any_bytes_are_a_stream_or_refused(data):
    with suppress(CorruptObjectError):
        read_tokens(np.frombuffer(data, np.uint8), 1000)


def _pair(scale: float = 1e-6) -> tuple[np.ndarray, bytes, np.ndarray]:
    base = gaussian((300, 256), "F32", 0)
    tuned = base + gaussian((300, 256), "F32", 1, scale)
    return deflated(base.tobytes()), tuned.tobytes(), deflated(tuned.tobytes())


def test_a_fine_tune_costs_its_differences():
    base, plain, stream = _pair()
    found = ENCODING.encode(stream, base, F32)
    decoded = ENCODING.decode(found, base, Geometry(dtype("")), stream.size)
    assert decoded.tobytes() == stream.tobytes()
    own = sum(stored(Encoded(b"", (part,))) for part in found.parts[:5])
    assert own < 0.016 * len(plain)
    assert ENCODING.work(found, stream.size) < 16 * stream.size + (32 << 10) * own


def test_what_is_no_stream_of_weights_is_declined():
    base, _, stream = _pair()
    noise = deflated(np.random.default_rng(0).bytes(100_000))
    text = deflated(b"the same words, again and again " * 5000)
    for raw in (noise, text, stream[:-1], np.append(stream, np.uint8(0)), stream[1:], stream[:0]):
        assert ENCODING.encode(raw, base, F32) is None
    assert ENCODING.encode(stream, noise[:-1], F32) is None
    assert ENCODING.encode(stream, deflated(bytes(1 << 20)), F32) is None, "a bomb is no base"
    assert ENCODING.encode(stream, base, Geometry(dtype("F32"))) is None
    assert ENCODING.encode(stream, None, F32) is None


def _changed(encoded: Encoded, number: int, data: bytes) -> Encoded:
    parts = list(encoded.parts)
    parts[number] = Part(parts[number].word, data)
    return Encoded(encoded.params, tuple(parts))


def test_frames_that_do_not_fit_are_refused():
    base, _, stream = _pair()
    found = ENCODING.encode(stream, base, F32)
    counts, gaps, lengths = (bytes(found.parts[at].data) for at in (1, 2, 3))
    attacks = [
        Encoded(b"", found.parts),
        Encoded(b"\0" + found.params[1:], found.parts),
        Encoded(b"\7" + found.params[1:], found.parts),
        Encoded(
            found.params[:2] + (1 << 40).to_bytes(8, "little") + found.params[10:], found.parts
        ),
        Encoded(found.params, found.parts[:4]),
        _changed(found, 0, b""),
        _changed(found, 0, bytes(len(found.parts[0].data))),
        _changed(found, 0, b"\xff" * len(found.parts[0].data)),
        _changed(found, 1, counts[:-4]),
        _changed(found, 1, counts + b"\1\0\0\0"),
        _changed(found, 1, b"\xff" * len(counts)),
        _changed(found, 2, gaps[:-1]),
        _changed(found, 2, b"\xff" * len(gaps)),
        _changed(found, 3, lengths[:-1]),
        _changed(found, 3, b"\xff" * len(lengths)),
    ]
    for attack in attacks:
        with pytest.raises(CorruptObjectError):
            ENCODING.decode(attack, base, Geometry(dtype("")), stream.size)
    for length in (1, stream.size - 1, stream.size + 1):
        with pytest.raises(CorruptObjectError):
            ENCODING.decode(found, base, Geometry(dtype("")), length)
    for bad in (None, base[:-1], deflated(bytes(1 << 26))):
        with pytest.raises(CorruptObjectError):
            ENCODING.decode(found, bad, Geometry(dtype("")), stream.size)


def test_many_blocks_or_matches_that_nobody_paid_for_are_not_affordable():
    """A header is parsed for each block, and 32 KiB searched for each match."""
    for number, word in ((1, 4), (3, 1)):
        parts = [Part(1, b""), Part(4, b""), Part(1, b""), Part(1, b""), Part(2, b"")]
        parts[number] = Part(word, bytes(word << 20))
        assert ENCODING.work(Encoded(b"", tuple(parts)), 1 << 20) > 16 << 20
