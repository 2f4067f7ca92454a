"""What counts as the same where strategies promise no bits."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta.checkpoint.reader import Reader
from git_theta.merge.compute.agreement import agrees


@pytest.mark.parametrize(
    ("dtype", "moved", "expected"),
    [
        (np.float64, 5e-9, True),
        (np.float64, 2e-8, False),
        (np.float32, 1e-7, True),
        (np.float32, 5e-7, False),
        (np.int64, 1, False),
        (np.int64, 0, True),
    ],
)
def test_agreement_of_tensors(merger, dtype, moved, expected):
    """The largest number is 10: 1e-9 of it are 1e-8, and a digit of float32 at 1 is 1.2e-7."""
    one = np.array([1, 2, 10]).astype(dtype)
    other = one.copy()
    other[0] += dtype(moved)
    entries = [merger.store({"w": array}).tensors[0] for array in (one, other)]
    assert agrees(Reader(merger.workspace.storage), *entries) == expected
