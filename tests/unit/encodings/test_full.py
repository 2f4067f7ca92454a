from __future__ import annotations

import numpy as np
import pytest

from git_theta.core.dtypes import dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings.full import ENCODING
from git_theta.errors import CorruptObjectError

RAW = np.random.default_rng(0).integers(0, 256, 240, dtype=np.uint8)
F32 = Geometry(dtype("F32"))


@pytest.mark.parametrize(
    ("name", "word"),
    [("F64", 8), ("C128", 8), ("F32", 4), ("C64", 4), ("BF16", 2), ("I8", 1), ("F4", 1), ("?", 1)],
)
def test_words_are_the_dtypes(name: str, word: int) -> None:
    encoded = ENCODING.encode(RAW, None, Geometry(dtype(name)))
    assert encoded.params == b""
    assert [part.word for part in encoded.parts] == [word]
    assert encoded.parts[0].data == RAW.data


def test_words_that_do_not_fit_are_bytes() -> None:
    assert ENCODING.encode(RAW[:239], None, F32).parts[0].word == 1


@pytest.mark.parametrize(
    ("name", "exponent"), [("BF16", 8), ("F32", 8), ("C64", 8), ("F64", 11), ("F16", 0), ("I32", 0)]
)
def test_exponents_that_straddle_bytes_are_told(name: str, exponent: int) -> None:
    assert ENCODING.encode(RAW, None, Geometry(dtype(name))).parts[0].exponent == exponent
    assert ENCODING.encode(RAW[:239], None, Geometry(dtype(name))).parts[0].exponent == 0


def test_nothing_is_copied() -> None:
    encoded = ENCODING.encode(RAW, None, F32)
    decoded = ENCODING.decode(encoded, None, F32, RAW.size)
    assert np.shares_memory(decoded, RAW)
    np.testing.assert_array_equal(decoded, RAW)


@pytest.mark.parametrize(
    "encoded",
    [
        Encoded(b"", ()),
        Encoded(b"", (Part(1, bytes(239)),)),
        Encoded(b"", (Part(1, bytes(241)),)),
        Encoded(b"", (Part(1, bytes(240)), Part(1, b""))),
        Encoded(b"x", (Part(1, bytes(240)),)),
    ],
)
def test_what_does_not_fit_is_refused(encoded: Encoded) -> None:
    with pytest.raises(CorruptObjectError, match="exactly 240 bytes"):
        ENCODING.decode(encoded, None, F32, 240)
