import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.encodings.float_formats import FORMATS, narrow, spacing, widen, widen_single
from tests.support.weights import NUMPY

SIXTEEN = np.arange(1 << 16, dtype=np.uint16)


def same(left, right):
    return np.array_equal(left, right, equal_nan=True)


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_widens_every_sixteen_bit_float(name):
    with np.errstate(invalid="ignore"):
        expected = SIXTEEN.view(NUMPY[name]).astype(np.float64)
        singles = expected.astype(np.float32)
    assert same(widen(SIXTEEN, FORMATS[name]), expected)
    assert same(widen_single(SIXTEEN, FORMATS[name]), singles)


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_narrow_undoes_widen_for_every_number(name):
    values = widen(SIXTEEN, FORMATS[name])
    finite = ~np.isnan(values)
    assert np.array_equal(narrow(values[finite], FORMATS[name]), SIXTEEN[finite])


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_rounds_to_nearest_even_between_all_neighbours(name):
    values = np.sort(widen(SIXTEEN, FORMATS[name]))
    values = values[np.isfinite(values)]
    middle = (values[:-1] + values[1:]) / 2
    for points in (middle, np.nextafter(middle, 9e9), np.nextafter(middle, -9e9)):
        # By way of float32 like the module: ml_dtypes rounds float64 so as well.
        singles = points.astype(np.float32)
        expected = singles.astype(NUMPY[name]).view(np.uint16)
        assert np.array_equal(narrow(singles, FORMATS[name]), expected)


@given(st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=50))
def test_narrows_any_double_as_numpy_does(bits):
    values = np.array(bits, np.uint64).view(np.float64)
    values = values[~np.isnan(values)]
    with np.errstate(over="ignore"):
        singles = values.astype(np.float32)
        expected = {
            "F64": values.view(np.uint64),
            "F32": singles.view(np.uint32),
            "F16": values.astype(np.float16).view(np.uint16),
            "BF16": singles.astype(ml_dtypes.bfloat16).view(np.uint16),
        }
    for name, words in expected.items():
        assert np.array_equal(narrow(values, FORMATS[name]), words)


@pytest.mark.parametrize("name", ["F64", "F32", "F16"])
def test_spacing_is_the_distance_to_the_next_float(name):
    kind = NUMPY[name]
    rng = np.random.default_rng(0)
    values = np.ldexp(rng.random(500) + 0.5, rng.integers(-30, 15, 500)).astype(kind)
    least = np.finfo(kind).smallest_subnormal
    values = np.concatenate([values, -values, np.array([0, least, 1, 2, 0.5], kind)])
    larger = np.nextafter(np.abs(values), kind(np.inf)).astype(np.float64)
    expected = larger - np.abs(values).astype(np.float64)
    assert np.array_equal(spacing(values.astype(np.float64), FORMATS[name]), expected)


def test_spacing_of_bfloat16():
    values = np.array([1.0, 1.5, -2.0, 0.0])
    expected = [2.0**-7, 2.0**-7, 2.0**-6, 2.0**-133]
    assert spacing(values, FORMATS["BF16"]).tolist() == expected
