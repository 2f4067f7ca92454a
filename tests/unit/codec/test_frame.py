from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import git_theta.codec
from git_theta.codec import (
    HEADER_BYTES,
    Frame,
    Header,
    decode_frame,
    encode_frame,
    estimate,
    iter_headers,
    read_header,
)
from git_theta.core.layout import Encoded, Part, Transposition
from git_theta.errors import CorruptObjectError

CONTENT, BASE = "ab" * 32, "cd" * 32


def frame(*parts: Part, **changes: object) -> Frame:
    fields: dict = {
        "encoding": 0,
        "dtype": "F32",
        "raw_length": 1000,
        "content": CONTENT,
        "base": None,
        "encoded": Encoded(b"", parts),
    }
    return Frame(**(fields | changes))


def encode(value: Frame) -> bytes:
    return b"".join(encode_frame(value))


words = st.sampled_from([1, 2, 4, 8]).flatmap(
    lambda word: st.integers(0, 40).flatmap(
        lambda count: st.builds(
            Part,
            st.just(word),
            st.binary(min_size=word * count, max_size=word * count),
            st.integers(0, 8 * word - 1 if word > 1 else 0),
        )
    )
)
frames = st.builds(
    Frame,
    encoding=st.integers(0, 255),
    dtype=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=255),
    raw_length=st.integers(1, 1 << 26),
    content=st.binary(min_size=32, max_size=32).map(bytes.hex),
    base=st.none() | st.binary(min_size=32, max_size=32).map(bytes.hex),
    encoded=st.builds(Encoded, st.binary(max_size=300), st.lists(words, max_size=16).map(tuple)),
    transposition=st.none()
    | st.builds(Transposition, st.sampled_from([1, 2, 4, 8]), st.integers(1, 1 << 26)),
).map(lambda value: value if value.base else replace(value, transposition=None))


@given(frames)
def test_a_frame_survives(value: Frame) -> None:
    assert decode_frame(encode(value)) == value


@given(frames)
def test_the_header_is_read_from_the_first_bytes(value: Frame) -> None:
    data = encode(value)
    expected = Header(
        value.encoding,
        value.dtype,
        value.raw_length,
        value.content,
        value.base,
        len(data),
        value.transposition,
    )
    assert read_header(data[:HEADER_BYTES]) == expected


def test_large_planes_are_not_copied() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 1 << 20, dtype=np.uint8)
    buffers = encode_frame(frame(Part(1, noise.data), raw_length=noise.size))
    assert len(buffers) == 2
    assert np.shares_memory(np.frombuffer(buffers[1], np.uint8), noise)


def test_what_is_coded_is_stored_as_it_is() -> None:
    data = bytes(range(100)) * 100
    (_, stored) = encode_frame(frame(Part(1, data, is_coded=True), raw_length=len(data)))
    assert bytes(stored) == data
    assert estimate([Part(1, data, is_coded=True)]) > len(data) > estimate([Part(1, data)])


def test_a_frame_decodes_from_any_buffer() -> None:
    value = frame(Part(2, bytes(range(200))))
    data = encode(value)
    assert decode_frame(bytearray(data)) == decode_frame(memoryview(data)) == value


@pytest.mark.parametrize("name", ["ü", "F\n", "x" * 256])
def test_a_name_that_does_not_fit_is_left_out(name: str) -> None:
    assert decode_frame(encode(frame(dtype=name))).dtype == ""


def test_one_changed_word_costs_little() -> None:
    # What a sparse chunk of 64 MiB with one changed element holds.
    gap = bytes([255]) * 65000 + b"\7"
    value = frame(Part(1, gap), Part(4, b"\1\2\3\4"), base=BASE, raw_length=64 << 20)
    assert len(encode(value)) < 300


def reader(data: bytes) -> Callable[[int, int], bytes]:
    def read(offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(data)
        return data[offset : offset + length]

    return read


def test_frames_in_an_object_are_walked() -> None:
    pieces = [
        encode(frame(Part(1, bytes(range(250)) * n), base=BASE if n % 2 else None))
        for n in range(5)
    ]
    data = b"".join(pieces)
    found = list(iter_headers(reader(data), len(data)))
    assert [header for _, header in found] == [read_header(piece) for piece in pieces]
    assert [data[offset : offset + header.length] for offset, header in found] == pieces


def test_an_empty_object_has_no_frames() -> None:
    assert list(iter_headers(reader(b""), 0)) == []


@pytest.mark.parametrize("extra", [b"x", b"GTHF", bytes(500)])
def test_what_is_not_a_frame_ends_the_walk(extra: bytes) -> None:
    data = encode(frame()) + extra
    with pytest.raises(CorruptObjectError):
        list(iter_headers(reader(data), len(data)))


def test_a_frame_beyond_its_object_ends_the_walk() -> None:
    data = encode(frame(Part(1, bytes(range(200)) * 3)))
    with pytest.raises(CorruptObjectError, match="beyond its object by 1 bytes"):
        list(iter_headers(reader(data[:-1]), len(data) - 1))


@pytest.mark.parametrize("word", [1, 2, 4, 8])
def test_the_estimate_of_small_parts_is_exact(word: int) -> None:
    part = Part(word, np.random.default_rng(0).integers(0, 9, 8000, dtype=np.uint8).data)
    empty = len(encode(frame()))
    assert estimate([part]) == len(encode(frame(part))) - empty
    assert estimate([part, part]) == 2 * estimate([part])
    assert estimate([]) == 0


def test_the_estimate_of_large_parts_is_near() -> None:
    values = np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)
    part = Part(4, values.view(np.uint8).data)
    stored = len(encode(frame(part, raw_length=part.nbytes)))
    assert estimate([part]) == pytest.approx(stored, rel=0.01)


def test_what_the_package_offers() -> None:
    public = {name for name in vars(git_theta.codec) if not name.startswith("_")}
    assert public - {"entropy", "frame", "planes"} == set(git_theta.codec.__all__)
