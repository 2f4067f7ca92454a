import dataclasses
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.core.dtypes import dtype
from git_theta.core.hashes import content_hash
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings import scaling
from git_theta.encodings.float_formats import FORMATS
from git_theta.encodings.ia3 import COLUMNS, ENCODING, ROWS, Scales, encode_with_scales, scale
from git_theta.errors import CorruptObjectError
from tests.support.weights import NUMPY, gaussian, minilm, raw, stored

FLOATS = sorted(NUMPY)


def vector(size, seed=0):
    return (1 + 0.1 * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


def scaled(base, factors, axis):
    """What frameworks give: the product in the wider precision, rounded to the base's."""
    wide = np.promote_types(np.float32, base.dtype if base.itemsize > 2 else np.float32)
    product = base.astype(wide) * np.expand_dims(factors.astype(wide), 1 - axis)
    return product.astype(base.dtype)


def find(actual, base, name, first=0):
    return ENCODING.encode(raw(actual), raw(base), Geometry(dtype(name), actual.shape, first))


def check(encoded, actual, base, name):
    assert encoded is not None
    decoded = ENCODING.decode(encoded, raw(base), Geometry(dtype(name)), actual.nbytes)
    assert decoded.tobytes() == actual.tobytes()


@pytest.mark.parametrize("axis", [ROWS, COLUMNS])
def test_a_scaling_of_the_real_model_costs_less_than_the_factors(axis):
    base = minilm()["encoder.layer.0.intermediate.dense.weight"]
    factors = vector(base.shape[axis])
    actual = scaled(base, factors, axis)
    encoded = find(actual, base, "F32")
    check(encoded, actual, base, "F32")
    # 0.87 was measured, the aim is 2.
    assert stored(encoded) <= 0.95 * factors.nbytes


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("axis", [ROWS, COLUMNS])
def test_finds_the_scaling_of_every_float(name, axis):
    base = gaussian((160, 200), name, 0)
    actual = scaled(base, vector(base.shape[axis]), axis)
    encoded = find(actual, base, name)
    check(encoded, actual, base, name)
    assert encoded.params[0] == axis
    assert encoded.parts[1].nbytes < 0.01 * base.size


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_neighbours_tell_a_scaling_from_noise(name, size):
    form = FORMATS[name]
    # The smaller ones are denormal in F16.
    base = (gaussian((16, 65), name, 0).astype(np.float64) * size).astype(NUMPY[name])
    for axis in (ROWS, COLUMNS):
        actual = scaled(base, vector(base.shape[axis]), axis)
        noisy = (base * (1 + vector(base.size, 1).reshape(base.shape))).astype(base.dtype)
        words = [each.view(form.unsigned) for each in (base, actual, noisy)]
        assert not scaling._varies(words[0], words[1], form, axis)
        if size == 1:
            assert scaling._varies(words[0], words[2], form, axis)


def test_a_scaling_by_one_number():
    for shape in ((3000,), (100, 80)):
        base = gaussian(shape, "F32", 0)
        actual = base * np.float32(0.7)
        encoded = find(actual, base, "F32")
        check(encoded, actual, base, "F32")
        assert stored(encoded) < 120


def test_negative_and_zero_factors():
    base = gaussian((64, 300), "F32", 0)
    factors = vector(64)
    factors[3], factors[5], factors[7] = -1.5, 0.0, -0.0
    actual = scaled(base, factors, ROWS)
    check(find(actual, base, "F32"), actual, base, "F32")


def test_a_few_elements_may_differ():
    base = gaussian((64, 300), "F32", 0)
    actual = scaled(base, vector(64), ROWS)
    actual[::9, ::11] = 3
    encoded = find(actual, base, "F32")
    check(encoded, actual, base, "F32")
    assert encoded.parts[2].nbytes <= 8 * 28 * 4


@pytest.mark.parametrize("name", FLOATS)
def test_special_values_come_back(name):
    base = gaussian((128, 160), name, 0)
    base[3, :4] = np.array([np.nan, np.inf, -np.inf, -0.0]).astype(base.dtype)
    base[7] = 0
    base[:, 9] = np.inf
    base[9] = np.nan
    with np.errstate(all="ignore"):
        actual = scaled(base, vector(128), ROWS)
    actual[5, :4] = np.array([np.nan, np.inf, -np.inf, -0.0]).astype(base.dtype)
    actual.view(f"u{base.itemsize}")[6, 6] = (1 << (8 * base.itemsize)) - 5
    check(find(actual, base, name), actual, base, name)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5])
def test_another_change_is_refused(name, size):
    base = gaussian((256, 256), name, 0)
    change = gaussian((256, 256), "F32", 1, size)
    actual = (base.astype(np.float32) + change).astype(base.dtype)
    assert find(actual, base, name) is None


def test_no_change_and_few_changes_are_refused():
    base = gaussian((256, 256), "F32", 0)
    few = base.copy()
    few[:2] *= 2
    assert find(base, base, "F32") is None
    assert find(few, base, "F32") is None
    assert find(np.zeros_like(base), np.zeros_like(base), "F32") is None


def test_what_it_does_not_apply_to_is_refused():
    base = gaussian((256, 16), "F32", 0)
    double = base * 2
    assert ENCODING.encode(raw(double), None, Geometry(dtype("F32"), base.shape)) is None
    assert ENCODING.encode(raw(double), raw(base[1:]), Geometry(dtype("F32"), base.shape)) is None
    assert ENCODING.encode(raw(double), raw(base), Geometry(dtype("F32"), base.shape, 8)) is None
    for name in ("I32", "U8", "F8_E4M3", "C64"):
        assert ENCODING.encode(raw(double), raw(base), Geometry(dtype(name), base.shape)) is None
    # A factor for every few elements is no gain.
    thin = gaussian((1000, 4), "F32", 0)
    assert find(scaled(thin, vector(1000), ROWS), thin, "F32") is None


def test_a_chunk_is_a_slice_of_rows():
    base = gaussian((300, 100), "F32", 0)
    for axis in (ROWS, COLUMNS):
        factors = vector(base.shape[axis])
        actual = scaled(base, factors, axis)
        for cut in (slice(0, 120), slice(120, 300)):
            new, old = actual[cut], base[cut]
            shape = Geometry(dtype("F32"), base.shape, cut.start * 100)
            known = Scales(axis, "F32", factors.view(np.uint32))
            encoded = encode_with_scales(raw(new), raw(old), shape, known)
            check(encoded, new, old, "F32")
            check(ENCODING.encode(raw(new), raw(old), shape), new, old, "F32")
            assert encoded.parts[0].nbytes == 4 * (180 if cut.start else 120, 100)[axis]
            assert encoded.parts[1].nbytes == 0


@pytest.mark.parametrize("name", FLOATS)
def test_given_factors_of_a_vector(name):
    base = gaussian((50,), "F32", 0)
    factors = vector(50).astype(NUMPY[name])
    actual = (base.astype(np.float64) * factors.astype(np.float64)).astype(np.float32)
    known = Scales(COLUMNS, name, factors.view(f"u{factors.itemsize}"))
    shape = Geometry(dtype("F32"), (50,))
    encoded = encode_with_scales(raw(actual), raw(base), shape, known)
    check(encoded, actual, base, "F32")
    assert encoded.parts[1].nbytes == 0


def test_given_factors_for_what_cannot_be_scaled():
    data = np.zeros(64, np.uint8)
    known = Scales(ROWS, "F32", np.ones(4, np.uint32))
    assert encode_with_scales(data, data, Geometry(dtype("I32"), (4, 4)), known) is None


@settings(max_examples=60)
@given(
    st.integers(1, 50), st.integers(1, 50), st.sampled_from([ROWS, COLUMNS]),
    st.sampled_from(FLOATS), st.integers(0, 9), st.integers(0, 50),
)  # fmt: skip
def test_whatever_it_takes_it_gives_back(rows, columns, axis, name, seed, noise):
    base = gaussian((rows, columns), name, seed)
    factors = vector(base.shape[axis], seed)
    actual = scaled(base, factors, axis)
    words = actual.reshape(-1).view(f"u{base.itemsize}")
    rng = np.random.default_rng(noise)
    words[rng.integers(0, words.size, noise)] = rng.integers(0, 1 << 16, noise)
    encoded = find(actual, base, name)
    if encoded is not None:
        check(encoded, actual, base, name)
    known = Scales(axis, "F32", factors.view(np.uint32))
    shape = Geometry(dtype(name), actual.shape)
    check(encode_with_scales(raw(actual), raw(base), shape, known), actual, base, name)


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 500), st.sampled_from([0, 1]))
def test_the_block_changes_no_bit(rows, columns, block, axis):
    base = gaussian((rows, columns), "BF16", rows).view(np.uint16)
    factors = Scales(axis, "F32", vector(base.shape[axis]).view(np.uint32))
    whole = scale(base, factors, FORMATS["BF16"])
    assert np.array_equal(scale(base, factors, FORMATS["BF16"], block), whole)


def test_the_same_bits_for_ever():
    """Frozen: other bits here mean that objects stored before cannot be read."""
    base = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    factors = Scales(ROWS, "F32", (np.arange(1, 257, dtype=np.float32) / 77).view(np.uint32))
    hashes = [
        content_hash(scale(base, factors, FORMATS[name]).tobytes())[:16] for name in ("F16", "BF16")
    ]
    assert hashes == ["62796f59d9d559a9", "b67e82d28c4fef61"]


def test_the_product_is_rounded_once():
    base, factors = gaussian((30, 40), "F32", 0), vector(30)
    got = scale(base.view(np.uint32), Scales(ROWS, "F32", factors.view(np.uint32)), FORMATS["F32"])
    assert np.array_equal(got.view(np.float32), base * factors[:, None])


def test_where_the_product_is_nan_the_base_stays():
    base = np.array([[0x7F800001, 0x7F800000, 0x80000000]], np.uint32)
    zero = Scales(ROWS, "F32", np.zeros(1, np.uint32))
    assert scale(base, zero, FORMATS["F32"]).tolist() == [[0x7F800001, 0x7F800000, 0x80000000]]


@pytest.fixture
def frame():
    base = gaussian((64, 300), "F32", 0)
    actual = scaled(base, vector(64), ROWS)
    encoded = find(actual, base, "F32")
    check(encoded, actual, base, "F32")
    return encoded, base


def refused(encoded, base, name="F32", length=64 * 300 * 4):
    with pytest.raises(CorruptObjectError):
        ENCODING.decode(encoded, base, Geometry(dtype(name)), length)


HEAD = struct.Struct("<BBI")


@pytest.mark.parametrize(
    ("field", "values"), [(0, [1, 2, 255]), (1, [0, 1, 3, 4]), (2, [0, 1, 150, 2**32 - 1])]
)
def test_params_that_are_not_valid(frame, field, values):
    encoded, base = frame
    for value in values:
        fields = list(HEAD.unpack(encoded.params))
        fields[field] = value
        refused(dataclasses.replace(encoded, params=HEAD.pack(*fields)), raw(base))


def test_a_frame_that_does_not_fit(frame):
    encoded, base = frame
    for params in (b"", encoded.params[:-1], encoded.params + b"\0"):
        refused(dataclasses.replace(encoded, params=params), raw(base))
    refused(encoded, None)
    refused(encoded, raw(base)[:-1200])
    refused(encoded, raw(base), "I32")
    refused(encoded, raw(base)[:-4], length=64 * 300 * 4 - 4)
    refused(encoded, raw(base)[:-1200], length=63 * 300 * 4)
    refused(Encoded(encoded.params, encoded.parts[:2]), raw(base))
    short = Part(4, bytes(encoded.parts[0].data)[:-4])
    refused(Encoded(encoded.params, (short, *encoded.parts[1:])), raw(base))
