from __future__ import annotations

import numpy as np
import pytest

from git_theta.core.dtypes import dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings.cast import ENCODING, cast
from git_theta.encodings.float_formats import FORMATS
from git_theta.errors import CorruptObjectError
from tests.support.weights import NUMPY, encoded_exactly, gaussian, minilm, stored

FLOATS = sorted(NUMPY)
PAIRS = [(source, target) for source in FLOATS for target in FLOATS if source != target]


def find(actual, base, name):
    return encoded_exactly(ENCODING, actual, base, name)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_cast_takes_one_byte(source, target):
    base = gaussian((160, 300), source, 0)
    with np.errstate(all="ignore"):
        found = find(base.astype(NUMPY[target]), base, target)
    assert found is not None
    assert stored(found) == 0


@pytest.mark.parametrize("target", ["BF16", "F16"])
def test_a_fine_tune_of_a_cast_of_the_real_model_costs_its_changes(target):
    base = minilm()["encoder.layer.0.intermediate.dense.weight"]
    actual = base.astype(NUMPY[target])
    actual[::7, ::5] *= NUMPY[target](1.01)
    found = find(actual, base, target)
    assert found is not None
    assert stored(found) < 0.12 * actual.nbytes


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_bit_pattern_of_a_narrow_float_survives(source, target):
    patterns = np.arange(1 << 16, dtype="<u2")
    if FORMATS[source].word == 2:
        base = patterns.view(NUMPY[source])
    else:
        base = patterns.view(NUMPY["F16"]).astype(NUMPY[source])
    with np.errstate(all="ignore"):
        assert find(base.astype(NUMPY[target]), base, target) is not None


def test_rounds_to_nearest_and_ties_to_even():
    ties = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0xFF7FFFFF, 0x7FC00001], "<u4")
    found = cast(ties, FORMATS["F32"], FORMATS["BF16"])
    assert [hex(word) for word in found.tolist()] == ["0x3f80", "0x3f82", "0x3f81", "0xff80", "0x0"]


def test_other_weights_of_the_right_size_are_declined():
    assert find(gaussian((160, 300), "BF16", 0), gaussian((160, 300), "F32", 1), "BF16") is None
    assert find(gaussian((160, 300), "F32", 0), gaussian((160, 300), "F32", 0), "F32") is None


@pytest.mark.parametrize(
    ("params", "parts", "size", "length"),
    [
        (b"\2", (Part(1, b""),), 64, 32),
        (b"\4", (Part(1, b""), Part(2, b"")), 64, 32),
        (b"", (Part(1, b""), Part(2, b"")), 64, 32),
        (b"\2\2", (Part(1, b""), Part(2, b"")), 64, 32),
        (b"\2", (Part(1, b""), Part(2, b"")), 60, 32),
        (b"\2", (Part(1, b""), Part(2, b"")), 64, 31),
        (b"\3", (Part(1, b""), Part(2, b"")), 64, 32),
        (b"\2", (Part(1, b"\0"), Part(2, b"")), 64, 32),
        (b"\2", (Part(1, b""), Part(4, b"")), 64, 32),
        (b"\2", (Part(1, b"\x20"), Part(2, b"\1\0")), 64, 32),
    ],
)
def test_frames_that_do_not_fit_are_refused(params, parts, size, length):
    base = np.zeros(size, np.uint8)
    with pytest.raises(CorruptObjectError):
        ENCODING.decode(Encoded(params, parts), base, Geometry(dtype("BF16")), length)


def test_a_dtype_that_is_no_float_is_refused():
    encoded = Encoded(b"\2", (Part(1, b""), Part(2, b"")))
    with pytest.raises(CorruptObjectError):
        ENCODING.decode(encoded, np.zeros(64, np.uint8), Geometry(dtype("I16")), 32)
