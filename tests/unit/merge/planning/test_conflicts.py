from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from git_theta.merge.planning.actions import Conflict
from git_theta.merge.planning.conflicts import by_kind, pattern_of


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("encoder.layer.11.attention.query.weight", "encoder.layer.*.attention.query.weight"),
        ("h.0.ln_1.bias", "h.*.ln_*.bias"),
        ("conv2d.weight", "conv2d.weight"),
        ("7", "*"),
        ("a[0].*?", "a[[]0].[*][?]"),
    ],
)
def test_layers_are_alike(name, pattern):
    assert pattern_of(name) == pattern
    assert fnmatchcase(name, pattern)


def test_conflicts_of_one_kind_stand_together():
    given = [("h.1.w", "x"), ("b", "x"), ("h.0.w", "x"), ("h.2.w", "y")]
    first, bias, last, other = (Conflict(name, reason) for name, reason in given)
    expected = [("b", [bias]), ("h.*.w", [last, first]), ("h.*.w", [other])]
    assert by_kind([first, bias, last, other]) == expected
