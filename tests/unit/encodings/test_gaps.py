from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.encodings.gaps import from_gaps, iter_positions, to_gaps
from git_theta.errors import CorruptObjectError


@pytest.mark.parametrize(
    ("positions", "gaps"),
    [
        ([], []),
        ([0], [0]),
        ([0, 1, 2], [0, 0, 0]),
        ([3, 5], [3, 1]),
        ([254], [254]),
        ([255], [255, 0]),
        ([256, 257], [255, 1, 0]),
        ([510, 1000], [255, 255, 0, 255, 234]),
    ],
)
def test_gaps(positions: list[int], gaps: list[int]) -> None:
    stored = to_gaps(np.array(positions, np.intp))
    assert stored.dtype == np.uint8
    assert stored.tolist() == gaps
    assert from_gaps(stored, 1001).tolist() == positions


@given(st.sets(st.integers(0, 5000)))
def test_positions_survive(chosen: set[int]) -> None:
    positions = np.array(sorted(chosen), np.intp)
    assert from_gaps(to_gaps(positions), 5001).tolist() == positions.tolist()


def test_a_position_far_out() -> None:
    positions = np.array([(1 << 28) - 1], np.intp)
    assert from_gaps(to_gaps(positions), 1 << 28).tolist() == positions.tolist()


@pytest.mark.parametrize(
    ("stored", "why"),
    [([255], "cut off"), ([1, 255, 255], "cut off"), ([10], "beyond"), ([9, 0], "beyond")],
)
def test_gaps_that_do_not_fit_are_refused(stored: list[int], why: str) -> None:
    with pytest.raises(CorruptObjectError, match=why):
        from_gaps(np.array(stored, np.uint8), 10)


def test_positions_come_in_pieces_that_carry_on() -> None:
    # Long gaps and short ones, more than three pieces, pieces that end within a gap.
    steps = np.random.default_rng(0).choice([1, 2, 255, 256, 100_000], 20_000)
    positions = np.cumsum(steps)
    stored = to_gaps(positions)
    pieces = list(iter_positions(stored, int(positions[-1]) + 1))
    assert len(pieces) > 3
    np.testing.assert_array_equal(np.concatenate(pieces), positions)


def test_gaps_after_a_position_continue_its_gaps() -> None:
    positions = np.array([3, 4, 900, 2000], np.intp)
    halves = [to_gaps(positions[:2]), to_gaps(positions[2:], before=4)]
    np.testing.assert_array_equal(np.concatenate(halves), to_gaps(positions))
