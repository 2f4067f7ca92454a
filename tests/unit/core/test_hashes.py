"""Names of content."""

from __future__ import annotations

import pytest

from git_theta.core.hashes import HASH_BYTES, Ref, content_hash, is_hex256

# From the specification of BLAKE3.
EMPTY_BLAKE3 = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
ABC_BLAKE3 = "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_known_hashes(kind: type) -> None:
    assert content_hash(kind(b"")) == EMPTY_BLAKE3
    assert content_hash(kind(b"abc")) == ABC_BLAKE3
    assert len(content_hash(b"")) == 2 * HASH_BYTES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0123456789abcdef" * 4, True),
        ("0123456789ABCDEF" * 4, False),
        ("0" * 63, False),
        ("0" * 65, False),
        ("0" * 64 + "\n", False),
        ("g" * 64, False),
        ("\u0660" * 64, False),
        (b"0" * 64, False),
        (None, False),
    ],
)
def test_is_hex256(text: object, expected: bool) -> None:
    assert is_hex256(text) is expected


@pytest.mark.parametrize(
    ("ref", "whole"),
    [
        (Ref("0" * 64, 10, 0, 10), True),
        (Ref("0" * 64, 10, 0, 9), False),
        (Ref("0" * 64, 10, 1, 9), False),
    ],
)
def test_whole(ref: Ref, whole: bool) -> None:
    assert ref.is_whole is whole
