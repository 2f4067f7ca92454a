from __future__ import annotations

from git_theta.merge.planning.actions import Conflict
from git_theta.merge.planning.conflicts import by_kind


def test_conflicts_of_one_kind_stand_together():
    given = [("h.1.w", "x"), ("b", "x"), ("h.0.w", "x"), ("h.2.w", "y")]
    first, bias, last, other = (Conflict(name, reason) for name, reason in given)
    expected = [("b", [bias]), ("h.*.w", [last, first]), ("h.*.w", [other])]
    assert by_kind([first, bias, last, other]) == expected
