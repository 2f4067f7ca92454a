from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from git_theta.core.dtypes import dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings.pruned import ENCODING
from git_theta.errors import CorruptObjectError
from tests.support.weights import NUMPY, encoded_exactly, gaussian, minilm, raw, stored

FLOATS = sorted(NUMPY)
SHAPE = (160, 300)


def find(actual, base, name):
    return encoded_exactly(ENCODING, actual, base, name)


def smallest(base, share=0.5):
    sizes = np.abs(base.astype(np.float64))
    return sizes < np.quantile(sizes, share)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("keeps_signs", [False, True])
def test_the_smallest_half_takes_next_to_nothing(name, keeps_signs):
    base = gaussian(SHAPE, name, 0)
    gone = smallest(base)
    # A product with a mask, as torch.nn.utils.prune computes it, has zeros of both signs.
    actual = base * (~gone).astype(base.dtype) if keeps_signs else np.where(gone, 0, base)
    found = find(actual.astype(base.dtype), base, name)
    bits, gaps, values = found.parts
    # A threshold is found to the last bit of 16, and misses 1 in 128 values of a longer float.
    wrong = np.count_nonzero(np.unpackbits(np.frombuffer(bits.data, np.uint8)))
    assert wrong <= {2: 0, 4: 0.01, 8: 0.05}[base.itemsize] * base.size
    assert gaps.nbytes == values.nbytes == 0


@pytest.mark.parametrize("name", FLOATS)
def test_words_that_were_chosen_otherwise_take_a_bit_each(name):
    base = gaussian(SHAPE, name, 0)
    gone = np.random.default_rng(1).random(SHAPE) < 0.3
    found = find(np.where(gone, base.dtype.type(0), base), base, name)
    assert found.parts[0].nbytes == base.size // 8
    assert stored(found) < 0.13 * base.size


def test_the_real_model_pruned_and_tuned():
    base = minilm()["encoder.layer.0.intermediate.dense.weight"]
    gone = smallest(base, 0.7)
    actual = np.where(gone, np.float32(0), base)
    assert stored(find(actual, base, "F32")) < 0.001 * base.nbytes
    tuned = np.where(gone, np.float32(0), base * np.float32(1 + 1e-6))
    assert stored(find(tuned, base, "F32")) < 0.1 * base.nbytes


def test_little_that_became_zero_is_left_to_other_encodings():
    base = gaussian(SHAPE, "F32", 0)
    few = base.copy()
    few[::7, ::11] = 0
    assert find(few, base, "F32") is None
    assert find(np.zeros_like(base), np.zeros_like(base), "F32") is None
    zeros = base * (base > 0)
    assert find(zeros, zeros, "F32") is None  # they were zero before


def test_odd_words_survive():
    base = np.resize(np.array([0, 0x8000, 1, 0x7F80, 0xFF80, 0x7FC1, 0xFFFF, 0x3F80], "<u2"), 77)
    for words in (0 * base, base & 0x8000, np.roll(base, 1), np.where(base > 9, 0, base)):
        actual = words.astype("<u2").view(NUMPY["BF16"])
        find(actual, base.view(NUMPY["BF16"]), "BF16")


def test_other_dtypes_and_lengths_are_declined():
    data, half = raw(gaussian(SHAPE, "F32", 0)), raw(np.zeros(SHAPE, np.float32))
    for name in ("I32", "U8", "C64", "F8_E4M3"):
        assert ENCODING.encode(half, data, Geometry(dtype(name))) is None
    geometry = Geometry(dtype("F32"))
    assert ENCODING.encode(half, data[:-4], geometry) is None
    assert ENCODING.encode(half[:-1], data[:-1], geometry) is None
    assert ENCODING.encode(half, None, geometry) is None
    assert ENCODING.encode(half[:0], data[:0], geometry) is None


BASE = gaussian((3, 5), "F32", 0)
GOOD = Encoded(bytes(9) + b"\2", (Part(1, bytes(2)), Part(1, b""), Part(4, b"")))


def changed(number: int, part: Part) -> tuple[Part, ...]:
    return (*GOOD.parts[:number], part, *GOOD.parts[number + 1 :])


def test_a_damaged_frame_is_reported():
    def read(encoded=GOOD, base=BASE, name="F32", length=60):
        found = None if base is None else raw(base)
        return ENCODING.decode(encoded, found, Geometry(dtype(name)), length)

    assert read().tobytes() == BASE.tobytes()
    threshold = (1 << 31).to_bytes(8, "little")
    assert not read(replace(GOOD, params=b"\0" + threshold + b"\2")).any()
    for damaged in (
        {"base": None},
        {"name": "I32"},
        {"length": 56},
        {"encoded": replace(GOOD, params=b"\2" + bytes(8) + b"\2")},
        {"encoded": replace(GOOD, params=b"\1" + (1 + (1 << 31)).to_bytes(8, "little") + b"\2")},
        {"encoded": replace(GOOD, params=bytes(9))},
        {"encoded": replace(GOOD, params=bytes(9) + b"\0")},
        {"encoded": replace(GOOD, params=bytes(9) + b"\x08")},
        {"encoded": replace(GOOD, parts=GOOD.parts[:2])},
        {"encoded": replace(GOOD, parts=changed(0, Part(1, bytes(3))))},
        {"encoded": replace(GOOD, parts=changed(0, Part(2, bytes(2))))},
        {"encoded": replace(GOOD, parts=changed(2, Part(4, bytes(4))))},
    ):
        with pytest.raises(CorruptObjectError):
            read(**damaged)
