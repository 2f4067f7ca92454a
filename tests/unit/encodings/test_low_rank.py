import dataclasses
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.core.dtypes import dtype
from git_theta.core.layout import Encoded, Geometry, Part
from git_theta.encodings import factorization, low_rank
from git_theta.encodings.change import spread
from git_theta.encodings.factors import Arithmetic, Matrix
from git_theta.encodings.float_formats import FORMATS
from git_theta.encodings.low_rank import ENCODING, encode_with_factors
from git_theta.encodings.quantising import quantise
from git_theta.errors import CorruptObjectError
from tests.support.weights import NUMPY, gaussian, lora, merged, minilm, raw, stored

FLOATS = sorted(NUMPY)


def geometry(array, name, first=0):
    return Geometry(dtype(name), array.shape, first)


def check(encoded, actual, base, name):
    """The encoded chunk gives the actual bytes back."""
    assert encoded is not None
    decoded = ENCODING.decode(encoded, raw(base), Geometry(dtype(name)), actual.nbytes)
    assert decoded.tobytes() == actual.tobytes()


def find(actual, base, name):
    return ENCODING.encode(raw(actual), raw(base), geometry(actual, name))


def matrix(array, name="F32"):
    array = np.ascontiguousarray(array)
    return Matrix(name, array.view(f"<u{array.itemsize}"))


@pytest.fixture(scope="module")
def real():
    tensors = minilm()
    layers = [(i, kind) for i in (0, 3) for kind in ("query", "value")]
    return [tensors[f"encoder.layer.{i}.attention.self.{kind}.weight"] for i, kind in layers]


@pytest.mark.parametrize("size", [1e-2, 1e-3])
def test_a_merge_into_the_real_model_is_found_at_little_more_than_the_factors(real, size):
    found = given_ = factors = 0
    for seed, base in enumerate(real):
        left, right = lora(base.shape, 8, seed, size)
        actual = base + left @ right * np.float32(2)
        encoded = find(actual, base, "F32")
        check(encoded, actual, base, "F32")
        found += stored(encoded)
        shape = geometry(actual, "F32")
        encoded = encode_with_factors(
            raw(actual), raw(base), shape, matrix(left.T), matrix(right), 2.0
        )
        check(encoded, actual, base, "F32")
        given_ += stored(encoded)
        factors += left.nbytes + right.nbytes
    # 1.18 and 0.93 were measured, the aim is 1.6; 0.85 for the given ones, where it is 1.15.
    assert found <= 1.3 * factors
    assert given_ <= 0.9 * factors


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_a_merge_into_16_bit_weights_costs_half_the_factors(real, name):
    base = real[0].astype(NUMPY[name])
    left, right = lora(base.shape, 8, 1)
    actual = merged(base, left @ right * np.float32(2))
    encoded = find(actual, base, name)
    check(encoded, actual, base, name)
    assert stored(encoded) <= 0.7 * (left.nbytes + right.nbytes)


def test_a_merge_in_float64(real):
    base = real[0].astype(np.float64)
    left, right = (it.astype(np.float64) for it in lora(base.shape, 8, 1))
    actual = base + left @ right
    encoded = find(actual, base, "F64")
    check(encoded, actual, base, "F64")
    assert stored(encoded) <= 0.25 * actual.nbytes


@pytest.mark.parametrize("rank", [1, 2, 16, 40])
def test_finds_the_rank(rank):
    base = gaussian((256, 320), "F32", 0)
    left, right = lora(base.shape, rank, 1)
    actual = merged(base, left @ right)
    encoded = find(actual, base, "F32")
    check(encoded, actual, base, "F32")
    assert encoded.parts[0].nbytes == rank * 256 * encoded.parts[0].word


def test_the_whole_may_show_a_higher_rank_than_a_sample():
    base = gaussian((1024, 1024), "BF16", 0)
    left, right = lora(base.shape, 40, 1, size=3e-3)
    strengths = np.geomspace(1, 0.1, 40, dtype=np.float32)  # a sample shows 22 of them
    actual = merged(base, left * strengths @ right)
    encoded = find(actual, base, "BF16")
    check(encoded, actual, base, "BF16")
    assert encoded.parts[0].nbytes == 28 * 1024 * encoded.parts[0].word


@pytest.mark.parametrize("shape", [(96, 16, 3, 3), (64, 128, 1)])
def test_a_tensor_of_more_dimensions_is_a_matrix_of_its_first(shape):
    base = gaussian(shape, "F32", 0)
    left, right = lora((shape[0], base.size // shape[0]), 4, 1)
    actual = base + (left @ right).reshape(shape)
    check(find(actual, base, "F32"), actual, base, "F32")


def test_a_chunk_is_a_slice_of_rows():
    base = gaussian((300, 100), "F32", 0)
    left, right = lora(base.shape, 4, 1)
    actual = base + left @ right
    for first, last in ((0, 120), (120, 300)):
        new, old = actual[first:last], base[first:last]
        shape = geometry(actual, "F32", first * 100)
        found = ENCODING.encode(raw(new), raw(old), shape)
        known = encode_with_factors(raw(new), raw(old), shape, matrix(left.T), matrix(right), 1.0)
        check(found, new, old, "F32")
        check(known, new, old, "F32")
        assert known.parts[0].nbytes == (last - first) * 4 * 4
        assert known.parts[2].nbytes < 10  # what the factors do not reproduce


def test_a_chunk_that_is_not_whole_rows_is_refused():
    base = gaussian((300, 100), "F32", 0)
    actual = base + np.float32(1)
    for cut, first in ((slice(0, 12_010), 0), (slice(0, 12_000), 50)):
        shape = geometry(actual, "F32", first)
        new, old = raw(actual)[: cut.stop * 4], raw(base)[: cut.stop * 4]
        assert ENCODING.encode(new, old, shape) is None
        args = matrix(np.ones((1, 300), "f4")), matrix(np.ones((1, 100), "f4"))
        assert encode_with_factors(new, old, shape, *args, 1.0) is None


@pytest.mark.parametrize("name", ["I32", "U8", "C64", "F8_E4M3", "F4", "BOOL"])
def test_what_is_not_a_float_is_refused(name):
    data = np.arange(256 * 256, dtype=np.uint32).view(np.uint8)
    other = (np.arange(256 * 256, dtype=np.uint32) + 1).view(np.uint8)
    assert ENCODING.encode(data, other, Geometry(dtype(name), (256, 256))) is None


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5])
def test_a_dense_change_is_refused(name, size):
    base = gaussian((512, 512), name, 0)
    actual = merged(base, gaussian((512, 512), "F32", 1, size))
    assert find(actual, base, name) is None


@pytest.mark.parametrize("name", ["BF16", "F16"])
def test_a_few_rows_that_changed_are_no_low_rank(name):
    base = gaussian((512, 256), name, 0)
    change = np.zeros((512, 256), np.float32)
    change[::20] = gaussian((26, 256), "F32", 1, 1e-2)
    assert find(merged(base, change), base, name) is None


def test_weights_that_were_rounded_before_and_after():
    exact = gaussian((384, 384), "F32", 0)
    left, right = lora(exact.shape, 8, 1)
    base, actual = (it.astype(NUMPY["BF16"]) for it in (exact, exact + left @ right))
    encoded = find(actual, base, "BF16")
    check(encoded, actual, base, "BF16")
    assert encoded.parts[0].nbytes == 8 * 384 * encoded.parts[0].word
    assert stored(encoded) < 0.15 * actual.nbytes


def test_a_fine_tune_with_a_dominant_direction_is_refused():
    base = gaussian((384, 384), "BF16", 0)
    left, right = lora(base.shape, 2, 1)
    change = left @ right + gaussian((384, 384), "F32", 2, 4e-4)
    assert find(merged(base, change), base, "BF16") is None


def test_other_changes_are_refused():
    base = gaussian((256, 256), "F32", 0)
    few = base.copy()
    few[::64, ::64] += 1
    longer = np.concatenate([base, base])
    assert find(base, base, "F32") is None
    assert find(few, base, "F32") is None
    assert find(longer, base, "F32") is None
    assert find(base * 2, base, "F32") is None
    assert ENCODING.encode(raw(base), None, geometry(base, "F32")) is None
    assert find(base[0] + 1, base[0], "F32") is None
    assert find(base[:2] + 1, base[:2], "F32") is None


def test_a_rank_that_only_the_whole_shows_to_be_high_is_refused():
    base = gaussian((2048, 128), "F32", 0)
    left, right = lora(base.shape, 4, 1)
    change = left @ right
    seen = np.concatenate([spread(2048, count) for count in (32, 48, 64, 96)])
    unseen = np.setdiff1d(np.arange(2048), seen)[::20]
    change[unseen] += gaussian((unseen.size, 128), "F32", 2, 1e-3)
    assert find(merged(base, change), base, "F32") is None


@pytest.mark.parametrize("name", FLOATS)
def test_special_values_come_back(name):
    base = gaussian((128, 160), name, 0)
    left, right = (it.astype(np.float64) for it in lora(base.shape, 4, 1))
    base[3, :4] = np.array([np.nan, np.inf, -np.inf, -0.0]).astype(base.dtype)
    base[7] = 0 if name != "F64" else 1e-3  # sums that are rounded finer than doubles can tell
    base[:, 9] = np.inf
    actual = merged(base, left @ right)
    actual[5, :4] = np.array([np.nan, np.inf, -np.inf, -0.0]).astype(base.dtype)
    actual.view(f"u{base.itemsize}")[6, 6] = (1 << (8 * base.itemsize)) - 5  # a NaN's payload
    check(find(actual, base, name), actual, base, name)


def test_a_failing_decomposition_is_no_error(monkeypatch):
    def fail(change):
        raise np.linalg.LinAlgError("SVD did not converge")

    base = gaussian((128, 128), "F32", 0)
    left, right = lora(base.shape, 4, 1)
    monkeypatch.setattr(low_rank, "find_signal", fail)
    assert find(base + left @ right, base, "F32") is None


def test_factors_too_far_apart_for_integers_are_refused():
    left, right = np.eye(64, 2) * [1, 1e-60], np.eye(2, 64)
    base = gaussian((64, 64), "F32", 0).view(np.uint32)
    assert quantise(base, base, FORMATS["F32"], left * 1e40, right, 1.0) is None


def test_a_change_without_rounding_needs_hardly_a_residual():
    rng = np.random.default_rng(0)
    base = rng.integers(1000, 2000, (96, 128)).astype(np.float32)
    left, right = rng.integers(-9, 9, (96, 3)), rng.integers(-9, 9, (3, 128))
    actual = base + (left @ right).astype(np.float32)
    encoded = find(actual, base, "F32")
    check(encoded, actual, base, "F32")
    assert encoded.parts[2].nbytes < 100


def test_without_refinement_it_costs_more_and_comes_back(monkeypatch):
    base = gaussian((256, 256), "F32", 0)
    left, right = lora(base.shape, 8, 1, size=1e-3)
    actual = base + left @ right
    refined = find(actual, base, "F32")
    monkeypatch.setattr(factorization, "_BUDGET", 0)
    plain = find(actual, base, "F32")
    check(plain, actual, base, "F32")
    assert stored(refined) < 0.9 * stored(plain)


@pytest.mark.parametrize("outlier", [1e30, 3e38, 1e-40])
def test_numbers_far_apart_come_back_or_are_refused(outlier):
    base = gaussian((128, 128), "F32", 0)
    left, right = lora(base.shape, 4, 1)
    actual = base + left @ right
    actual[5, 5] = outlier
    encoded = find(actual, base, "F32")
    if encoded is not None:
        check(encoded, actual, base, "F32")
    wide, old = actual.astype(np.float64) * 1e200, base.astype(np.float64)
    encoded = find(wide, old, "F64")
    if encoded is not None:
        check(encoded, wide, old, "F64")


@settings(max_examples=60)
@given(
    st.integers(8, 60), st.integers(8, 60), st.integers(1, 3), st.integers(0, 9),
    st.sampled_from(FLOATS), st.sampled_from([1e-3, 1.0, 1e4]), st.integers(0, 99),
)  # fmt: skip
def test_whatever_it_takes_it_gives_back(rows, columns, rank, seed, name, size, noise):
    base = gaussian((rows, columns), name, seed)
    left, right = lora((rows, columns), rank, seed)
    actual = merged(base, left @ right * np.float32(size))
    words = actual.reshape(-1).view(f"u{base.itemsize}")
    rng = np.random.default_rng(noise)
    words[rng.integers(0, words.size, noise)] = rng.integers(0, 1 << 16, noise)
    encoded = find(actual, base, name)
    if encoded is not None:
        check(encoded, actual, base, name)
    known = encode_with_factors(
        raw(actual), raw(base), geometry(actual, name), matrix(left.T), matrix(right), size
    )
    check(known, actual, base, name)


def test_same_input_same_bytes():
    base = gaussian((256, 256), "F32", 0)
    left, right = lora(base.shape, 4, 1)
    results = [find(base + left @ right, base, "F32") for _ in range(2)]
    assert results[0].params == results[1].params
    for one, other in zip(results[0].parts, results[1].parts, strict=True):
        assert bytes(one.data) == bytes(other.data)


@pytest.mark.parametrize("name", ["F16", "BF16", "F32", "F64"])
def test_given_factors_are_stored_as_they_are(name):
    base = gaussian((64, 48), "F32", 0)
    left, right = (it.astype(NUMPY[name]) for it in lora(base.shape, 4, 1))
    actual = base + (left.astype(np.float32) @ right.astype(np.float32)) * np.float32(0.5)
    args = matrix(left.T, name), matrix(right, name), 0.5
    encoded = encode_with_factors(raw(actual), raw(base), geometry(base, "F32"), *args)
    check(encoded, actual, base, "F32")
    assert bytes(encoded.parts[0].data) == np.ascontiguousarray(left.T).tobytes()
    assert bytes(encoded.parts[1].data) == right.tobytes()


def test_given_factors_whose_product_was_rounded_first():
    base = gaussian((256, 256), "BF16", 0)
    left, right = lora(base.shape, 8, 1)
    actual = merged(base, (left @ right).astype(NUMPY["BF16"]))
    args = matrix(left.T), matrix(right), 1.0
    encoded = encode_with_factors(raw(actual), raw(base), geometry(base, "BF16"), *args)
    assert encoded.params[0] == Arithmetic.FUSED
    assert encoded.parts[2].nbytes < 20


@pytest.fixture
def frame():
    base = gaussian((64, 48), "F32", 0)
    left, right = lora(base.shape, 4, 1)
    actual = base + left @ right
    args = matrix(left.T), matrix(right), 1.0
    encoded = encode_with_factors(raw(actual), raw(base), geometry(base, "F32"), *args)
    check(encoded, actual, base, "F32")
    return encoded, base


def refused(encoded, base, name="F32", length=64 * 48 * 4):
    with pytest.raises(CorruptObjectError):
        ENCODING.decode(encoded, base, Geometry(dtype(name)), length)


HEAD = struct.Struct("<BBBBHI")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        (0, [3, 255]),
        (1, [1, 9]),
        (2, [0, 8, 9]),
        (3, [0, 5]),
        (4, [0, 3, 65535]),
        (5, [0, 47, 96, 2**32 - 1]),
    ],
)
def test_params_that_are_not_valid(frame, field, values):
    encoded, base = frame
    for value in values:
        fields = list(HEAD.unpack_from(encoded.params))
        fields[field] = value
        params = HEAD.pack(*fields) + encoded.params[HEAD.size :]
        refused(dataclasses.replace(encoded, params=params), raw(base))


@pytest.mark.parametrize("size", [0, 5, 10, 41, 43, 50])
def test_params_of_the_wrong_size(frame, size):
    encoded, base = frame
    params = (encoded.params + bytes(8))[:size]
    refused(dataclasses.replace(encoded, params=params), raw(base))


def test_a_frame_that_does_not_fit(frame):
    encoded, base = frame
    refused(encoded, None)
    refused(encoded, raw(base)[:-192])
    refused(encoded, raw(base), "I32")
    refused(encoded, raw(base), "F64")
    refused(encoded, raw(base)[:-192], length=63 * 48 * 4)
    refused(Encoded(encoded.params, encoded.parts[:3]), raw(base))
    refused(Encoded(encoded.params, (*encoded.parts, encoded.parts[3])), raw(base))
    for index in range(2):
        parts = list(encoded.parts)
        parts[index] = Part(4, bytes(parts[index].data)[:-4])
        refused(Encoded(encoded.params, tuple(parts)), raw(base))
        parts[index] = Part(2, encoded.parts[index].data)
        refused(Encoded(encoded.params, tuple(parts)), raw(base))
