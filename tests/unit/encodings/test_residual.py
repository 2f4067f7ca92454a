import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from git_theta.core.layout import Part
from git_theta.encodings.residual import add_residual, part_of, residual_parts
from git_theta.errors import CorruptObjectError

WORDS = [np.dtype(f"<u{size}") for size in (2, 4, 8)]


@given(st.data(), st.sampled_from(WORDS), st.sampled_from([0.0, 0.01, 0.3, 0.6, 1.0]))
def test_turns_any_words_into_any_others(data, dtype, share):
    predicted = data.draw(hnp.arrays(dtype, st.integers(1, 900)))
    other = data.draw(hnp.arrays(dtype, predicted.shape))
    chosen = np.random.default_rng(predicted.size).random(predicted.size) < share
    actual = np.where(chosen, other, predicted)
    parts = residual_parts(predicted, actual)
    assert np.array_equal(add_residual(predicted.copy(), *parts), actual)


def test_a_right_prediction_costs_nothing():
    words = np.arange(10, dtype=np.uint32)
    assert [part.nbytes for part in residual_parts(words, words)] == [0, 0]


def test_one_step_off_is_a_small_value():
    values = np.array([1.0, -1.0, 0.0, -2.0, 5.0], np.float32)
    off = np.nextafter(values, np.float32(9))
    gaps, steps = residual_parts(values.view(np.uint32), off.view(np.uint32))
    assert gaps.nbytes == 0  # all are wrong: dense
    assert np.frombuffer(steps.data, np.uint32).max() <= 2


def test_many_wrong_ones_are_dense_and_few_are_sparse():
    actual = np.arange(1000, dtype=np.uint32)
    for wrong, gaps in ((390, 390), (410, 0)):
        predicted = actual + (np.arange(1000) < wrong).astype(np.uint32)
        assert residual_parts(predicted, actual)[0].nbytes == gaps


@pytest.mark.parametrize(
    ("gaps", "steps"),
    [
        (b"", [1]),  # neither empty nor for every element
        (b"", [1] * 11),
        (b"\1", []),
        (b"\1\1", [1]),
        (b"\x0a", [1]),  # beyond the end
        (b"\xff", []),  # within a gap
    ],
)
def test_refuses_parts_that_do_not_fit(gaps, steps):
    predicted = np.zeros(10, np.uint32)
    with pytest.raises(CorruptObjectError):
        add_residual(predicted, Part(1, gaps), part_of(np.array(steps, np.uint32)))


def test_refuses_parts_of_another_width():
    predicted, values = np.zeros(10, np.uint32), np.zeros(10, np.uint16)
    with pytest.raises(CorruptObjectError, match="width"):
        add_residual(predicted, Part(1, b""), part_of(values))
    with pytest.raises(CorruptObjectError, match="width"):
        add_residual(predicted, Part(2, b""), part_of(predicted))
