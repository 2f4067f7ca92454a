from __future__ import annotations

from fnmatch import fnmatchcase

import pytest

from git_theta.core.grouping import by_pattern, pattern_of


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


def test_names_of_one_pattern_and_kind_stand_together():
    given = [("h.10.w", 1), ("h.2.w", 1), ("b", 1), ("h.1.w", 2)]
    found = by_pattern(given, lambda each: each[0], lambda each: each[1])
    assert found == [
        ("b", [("b", 1)]),
        ("h.*.w", [("h.1.w", 2)]),
        ("h.*.w", [("h.2.w", 1), ("h.10.w", 1)]),
    ]
