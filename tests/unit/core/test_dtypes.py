"""Element types and the values that layers exchange."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from git_theta.core.dtypes import DTYPES, dtype, element_count
from git_theta.core.layout import Part

NUMPY = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
    "C64": np.complex64,
    "C128": np.complex128,
}


@pytest.mark.parametrize("name", NUMPY)
def test_widths_are_numpys(name: str) -> None:
    assert DTYPES[name].bits == 8 * np.dtype(NUMPY[name]).itemsize


def test_every_dtype_is_compared_or_packed() -> None:
    assert {d.name for d in DTYPES.values() if d.bits >= 8} == set(NUMPY)
    assert all(name == d.name for name, d in DTYPES.items())


@pytest.mark.parametrize(
    ("name", "word"),
    [("F64", 8), ("BF16", 2), ("I8", 1), ("BOOL", 1), ("C64", 4), ("C128", 8), ("F4", 1), ("?", 1)],
)
def test_word(name: str, word: int) -> None:
    assert dtype(name).word == word


def test_an_unknown_dtype_is_raw_bytes() -> None:
    unknown = dtype("F3_NEW")
    assert (unknown.name, unknown.bits, unknown.kind) == ("F3_NEW", 8, "raw")


@pytest.mark.parametrize(("shape", "count"), [((), 1), ((3, 4), 12), ((3, 0), 0)])
def test_element_count(shape: tuple[int, ...], count: int) -> None:
    assert element_count(shape) == count


def test_nbytes_counts_bytes_not_elements() -> None:
    assert Part(4, memoryview(np.zeros(3, np.uint32)).cast("B")).nbytes == 12
    assert Part(2, memoryview(np.zeros(3, np.uint16))).nbytes == 6
    assert Part(1, b"abc").nbytes == 3
