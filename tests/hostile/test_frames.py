"""Frames that were damaged, or made to harm: refused, before memory is taken for them."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from git_theta.codec import (
    HEADER_BYTES,
    Frame,
    decode_frame,
    encode_frame,
    iter_headers,
    read_header,
)
from git_theta.core.layout import Encoded, Part, Transposition
from git_theta.errors import CorruptObjectError, UnsupportedVersionError

CONTENT, BASE = "ab" * 32, "cd" * 32
# Part 0 has a constant, a raw and a zstd plane (and an empty one follows): every method.
PARTS = (
    Part(4, b"".join(bytes([9, i, i % 2, 1]) for i in range(200))),
    Part(2, b""),
)
VALUE = Frame(1, "F32", 800, CONTENT, BASE, Encoded(b"params", PARTS))
DATA = b"".join(encode_frame(VALUE))

VERSION, ENCODING, FLAGS, PART_COUNT, LENGTH, RAW_LENGTH = 4, 5, 6, 7, 8, 16
NAME = 88
PARAMS = NAME + 1 + len("F32")
TABLE = PARAMS + 2 + len(b"params")


def changed(offset: int, replacement: bytes) -> bytes:
    return DATA[:offset] + replacement + DATA[offset + len(replacement) :]


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def made(table: bytes, stored: bytes = b"", parts: int = 1, raw_length: int = 800) -> bytes:
    """A frame with part headers and stored bytes as given, and otherwise in order."""
    rest = b"\3F32" + b"\0\0" + table + stored
    head = struct.pack(
        "<4sBBBBQQ32s", b"GTHF", 1, 0, 0, parts, 56 + len(rest), raw_length, bytes(32)
    )
    return head + rest


def part(word: int, count: int, *planes: tuple[int, int], exponent: int = 0) -> bytes:
    return struct.pack("<BBQ", word, exponent, count) + b"".join(
        struct.pack("<BQ", *p) for p in planes
    )


def test_the_frame_under_attack_is_sound() -> None:
    assert decode_frame(DATA) == VALUE
    assert {DATA[TABLE + 10 + 9 * k] for k in range(4)} == {0, 1, 2}
    assert decode_frame(made(part(1, 3, (0, 3)), b"abc")).encoded.parts == (Part(1, b"abc"),)


@pytest.mark.parametrize(
    ("offset", "replacement"),
    [
        (0, b"GTHX"),
        (0, b"PK\3\4"),
        (VERSION, b"\0"),
        (FLAGS, b"\0"),
        (FLAGS, b"\2"),
        (FLAGS, b"\3"),
        (FLAGS, b"\x81"),
        (PART_COUNT, b"\0"),
        (PART_COUNT, b"\1"),
        (PART_COUNT, b"\3"),
        (PART_COUNT, b"\x11"),
        (PART_COUNT, b"\xff"),
        (LENGTH, u64(0)),
        (LENGTH, u64(len(DATA) - 1)),
        (LENGTH, u64(len(DATA) + 1)),
        (LENGTH, u64((1 << 64) - 1)),
        (RAW_LENGTH, u64(0)),
        (RAW_LENGTH, u64((1 << 26) + 1)),
        (RAW_LENGTH, u64((1 << 64) - 1)),
        (NAME, b"\0"),
        (NAME, b"\xff"),
        (NAME + 1, b"\xff"),
        (NAME + 1, b"\n"),
        (PARAMS, b"\0\0"),
        (PARAMS, b"\xff\xff"),
        (TABLE, b"\0"),
        (TABLE, b"\3"),
        (TABLE, b"\x08"),
        (TABLE + 1, b"\x20"),
        (TABLE + 1, b"\xff"),
        (TABLE + 2, u64(0)),
        (TABLE + 2, u64(199)),
        (TABLE + 2, u64(1 << 40)),
        (TABLE + 2, u64((1 << 64) - 1)),
        (TABLE + 10, b"\0"),
        (TABLE + 10, b"\3"),
        (TABLE + 11, u64(0)),
        (TABLE + 11, u64(2)),
        (TABLE + 20, u64((1 << 64) - 1)),
    ],
)
def test_a_field_with_a_wrong_value_is_refused(offset: int, replacement: bytes) -> None:
    with pytest.raises(CorruptObjectError):
        decode_frame(changed(offset, replacement))


@pytest.mark.parametrize(
    ("flags", "word", "columns"),
    [(2, 4, 5), (3, 0, 5), (3, 3, 5), (3, 16, 5), (3, 4, 0), (3, 4, 1 << 27), (7, 4, 5)],
)
def test_a_transposition_that_no_base_can_have_is_refused(flags: int, word: int, columns: int):
    inserted = struct.pack("<BQ", word, columns)
    data = DATA[:FLAGS] + bytes([flags]) + DATA[FLAGS + 1 : NAME] + inserted + DATA[NAME:]
    data = data[:LENGTH] + u64(len(data)) + data[LENGTH + 8 :]
    with pytest.raises(CorruptObjectError):
        decode_frame(data)


@pytest.mark.parametrize("version", [2, 255])
def test_a_newer_version_is_named(version: int) -> None:
    data = changed(VERSION, bytes([version]))
    for read in (decode_frame, read_header):
        with pytest.raises(UnsupportedVersionError, match=f"version {version} is newer") as caught:
            read(data)
        assert caught.value.hint


def test_an_unknown_encoding_is_for_the_caller_to_refuse() -> None:
    assert decode_frame(changed(ENCODING, b"\xc8")).encoding == 200


def test_every_truncation_is_refused() -> None:
    for length in range(len(DATA)):
        with pytest.raises(CorruptObjectError):
            decode_frame(DATA[:length])
        # With a length that agrees, too.
        if length > LENGTH + 8:
            with pytest.raises(CorruptObjectError):
                decode_frame(changed(LENGTH, u64(length))[:length])


@pytest.mark.parametrize("extra", [b"\0", DATA])
def test_trailing_bytes_are_refused(extra: bytes) -> None:
    with pytest.raises(CorruptObjectError, match="states"):
        decode_frame(DATA + extra)
    with pytest.raises(CorruptObjectError, match="follow the last plane"):
        decode_frame(changed(LENGTH, u64(len(DATA + extra))) + extra)


def test_parts_beyond_the_limit_are_refused() -> None:
    limit = 2 * 800 + (1 << 20)
    assert decode_frame(made(part(1, limit, (2, 1)), b"x")).encoded.parts[0].nbytes == limit
    with pytest.raises(CorruptObjectError, match=f"would take {limit + 1} bytes"):
        decode_frame(made(part(1, limit + 1, (2, 1)), b"x"))
    with pytest.raises(CorruptObjectError, match="would take"):
        decode_frame(made(part(8, limit // 8, *[(2, 1)] * 8) + part(1, 9, (2, 1)), b"x" * 9, 2))


def test_an_empty_part_stores_nothing() -> None:
    assert decode_frame(made(part(1, 0, (0, 0)))).encoded.parts == (Part(1, b""),)
    for method, stored in ((2, b"x"), (1, zstandard.ZstdCompressor().compress(b"")), (0, b"x")):
        with pytest.raises(CorruptObjectError):
            decode_frame(made(part(1, 0, (method, len(stored))), stored))


def bombs() -> list[bytes]:
    huge = zstandard.ZstdCompressor(level=3).compress(bytes(1 << 28))
    liar = bytearray(zstandard.ZstdCompressor().compress(bytes(1 << 20)))
    size = liar.index((1 << 20).to_bytes(4, "little"))
    liar[size : size + 4] = (1 << 31).to_bytes(4, "little")
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 28))
    return [
        made(part(1, 1 << 20, (1, len(stored))), stored) for stored in (huge, bytes(liar), unsized)
    ] + [
        made(part(8, 1 << 61, *[(2, 1)] * 8), b"x" * 8),
        made(part(8, 1 << 40, *[(2, 1)] * 8) * 16, b"x" * 128, 16),
    ]


def test_bytes_have_no_exponent() -> None:
    with pytest.raises(CorruptObjectError, match="exponents of 1 bits in words of 1 bytes"):
        decode_frame(made(part(1, 3, (0, 3), exponent=1), b"abc"))


def test_bombs_are_refused_before_memory_is_taken() -> None:
    for bomb in bombs():
        tracemalloc.start()
        try:
            with pytest.raises(CorruptObjectError):
                decode_frame(bomb)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4 << 20


@given(
    st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, 255)), min_size=1, max_size=4)
)
def test_flipped_bits_do_no_harm(flips: list[tuple[int, int]]) -> None:
    data = bytearray(DATA)
    for position, bits in flips:
        data[position] ^= bits
    with suppress(CorruptObjectError, UnsupportedVersionError):
        frame = decode_frame(data)
        assert 0 < frame.raw_length <= 1 << 26
        assert sum(part.nbytes for part in frame.encoded.parts) <= 2 * frame.raw_length + (1 << 20)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    for attack in (data, DATA[:LENGTH] + data, DATA[:TABLE] + data):
        with pytest.raises(CorruptObjectError):
            decode_frame(attack)


@pytest.mark.parametrize("length", [0, 8, NAME])
def test_headers_that_lie_do_not_make_a_walk_endless(length: int) -> None:
    # A frame of length 0 would be met again for ever.
    data = changed(LENGTH, u64(length))
    with pytest.raises(CorruptObjectError):
        list(iter_headers(lambda offset, size: data[offset : offset + size], len(data)))


def test_a_header_needs_no_more_than_it_says() -> None:
    long_name = Frame(0, "x" * 255, 1, CONTENT, BASE, Encoded(b"", ()), Transposition(8, 9))
    data = b"".join(encode_frame(long_name))
    assert read_header(data[:HEADER_BYTES]).dtype == "x" * 255
    with pytest.raises(CorruptObjectError, match="cut off"):
        read_header(data[: HEADER_BYTES - 1])
