"""Values of a sparse tensor belong to their places."""

from __future__ import annotations

import pytest

from git_theta.merge.planning.actions import Merge, Take
from tests.support.adapter_plans import decide
from tests.support.manifests import manifest, tensor, versions

FAMILIES = {
    "coo": ({"w.indices": "I64"}, "w.values"),
    "csr": ({"w.crow_indices": "I64", "w.col_indices": "I64"}, "w.values"),
    "csc": ({"w.ccol_indices": "I64", "w.row_indices": "I64"}, "w.values"),
    "scipy": ({"indices": "I32", "indptr": "I32"}, "data"),
}


def three(family, places: str, values: str):
    """A base and two sides, one letter each, of the places and of the values."""
    kinds, name = family
    return versions(
        *(
            manifest(
                *(tensor(each, place, kind) for each, kind in kinds.items()),
                tensor(name, value, "F32"),
            )
            for place, value in zip(places, values, strict=True)
        )
    )


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("places", ["aab", "aba", "abc"])
def test_values_of_other_places_are_a_conflict(family, places):
    (conflict,) = decide(three(family, places, "abc"), "*=average").conflicts
    assert "a sparse tensor's values and their places, which differ" in conflict.reason
    assert conflict.is_final is False  # a rule takes a side
    actions = decide(three(family, places, "abc"), f"{family[1]}=take:side=theirs").actions
    assert {(type(action), action.side) for action in actions} == {(Take, 1)}
    assert len(actions) == len(family[0]) + 1


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_values_of_the_same_places_are_merged(family):
    plan = decide(three(family, "aaa", "abc"), "*=average")
    assert [action.name for action in plan.actions if isinstance(action, Merge)] == [family[1]]
    assert not plan.conflicts


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_one_side_alone_is_taken_whole(family):
    actions = decide(three(family, "aab", "aab"), "*=average").actions
    assert {(action.side, action.why) for action in actions} == {(1, "one-sided")}
