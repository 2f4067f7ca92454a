"""A model that its branches cut into files differently."""

from __future__ import annotations

import json

import pytest

from git_theta.errors import MergeError
from git_theta.merge.planning.actions import Conflict, Drop, Take
from git_theta.merge.planning.cuts import Recut, check, differ, index_text
from git_theta.merge.planning.shards import versions_by_file
from git_theta.merge.planning.versions import BASE
from tests.support.adapter_plans import decide
from tests.support.manifests import alias, manifest, tensor

OLD = ("m-1-of-2", "m-2-of-2")
NEW = ("m-1-of-3", "m-2-of-3", "m-3-of-3")


def cut(paths, *files: str, **words: str):
    """Files whose tensors are called by a letter each; ``words`` are contents, ``a`` by default."""
    return {
        path: manifest(*(tensor(name, words.get(name, "a")) for name in names))
        for path, names in zip(paths, files, strict=True)
    }


BEFORE = cut(OLD, "uv", "wx")
TUNED = cut(OLD, "uv", "wx", **dict.fromkeys("uvwx", "b"))
SHARDED = cut(NEW, "u", "vw", "x")


@pytest.mark.parametrize("order", [1, -1])
def test_all_tensors_are_tuned_in_the_new_cut(order):
    recut = Recut(("one", "two")[::order], (TUNED, SHARDED)[::order], BEFORE)
    tuned = (0, 1)[::order][0]
    assert recut.paths == NEW
    taken = []
    for versions in versions_by_file(recut):
        assert versions.shells.keys() == {tuned, BASE}
        taken += decide(versions).actions
    assert [(a.name, type(a), a.side) for a in taken] == [(n, Take, tuned) for n in "uvwx"]


def test_one_tensor_moved_to_another_file():
    moved = cut(OLD, "u", "vwx")
    recut = Recut(("one", "two"), (TUNED, moved), BEFORE)
    actions = [a for v in versions_by_file(recut) for a in decide(v).actions]
    assert [(a.name, a.side) for a in actions] == [(name, 0) for name in "uvwx"]


def test_files_that_a_side_has_are_its_own():
    moved = cut((*OLD, "m-3"), "uv", "w", "x")
    recut = Recut(("one", "two"), (TUNED, moved), BEFORE)
    shells = [sorted(versions.shells) for versions in versions_by_file(recut)]
    assert shells == [[], [BASE, 0], [BASE, 0]]


def test_what_both_changed_is_in_conflict_in_the_new_cut():
    sharded = cut(NEW, "u", "vw", "x", w="c")
    recut = Recut(("one", "two"), (TUNED, sharded), BEFORE)
    found = [a for v in versions_by_file(recut) for a in decide(v).conflicts]
    assert found == [Conflict("w", "one and two changed it")]


def test_tensors_that_the_new_cut_does_not_know():
    """Added ones go to the last file, removed ones are a change as ever."""
    grown = cut(OLD, "uv", "wxy", **dict.fromkeys("uvwxy", "b"))
    less = cut(NEW, "u", "w", "x")
    actions = [
        a
        for v in versions_by_file(Recut(("one", "two"), (grown, less), BEFORE))
        for a in decide(v).actions
    ]
    assert [a.name for a in actions] == ["u", "w", "x", "v", "y"]
    assert isinstance(actions[3], Conflict)
    gone = Recut(("one", "two"), (TUNED | cut(OLD[:1], "uv"), less), BEFORE)
    dropped = [a for v in versions_by_file(gone) for a in decide(v).actions if isinstance(a, Drop)]
    assert [a.name for a in dropped] == ["v"]


def test_two_new_cuts():
    other = cut(("n",), "uvwx")
    recut = Recut(("one", "two"), (other, SHARDED), BEFORE)
    assert recut.paths == ("n",)
    assert recut.notes == ("the model is cut into files as in one, not as in two",)
    assert not Recut(("one", "two"), (TUNED, SHARDED), BEFORE).notes


def test_which_cuts_differ():
    assert differ(BEFORE, [TUNED, SHARDED])
    assert not differ(BEFORE, [TUNED, cut(OLD, "uv", "wxy"), cut(OLD, "u", "wx")])


def test_tied_tensors_are_not_moved():
    tied = {"n": manifest(tensor("u", "a"), alias("v", "u"))}
    with pytest.raises(MergeError, match="it has tied tensors"):
        check(Recut(("one", "two"), (TUNED, tied), BEFORE))


def test_the_index_of_the_files():
    entries = {"d/m-1": [tensor("u", "a")], "d/m-2": [tensor("v", "b"), tensor("w", "b")]}
    weights = {"u": "m-1", "v": "m-2", "w": "m-2"}
    same = json.dumps({"metadata": {"total_size": 72}, "weight_map": weights}).encode()
    assert index_text(same, entries) == same
    stale = json.dumps({"metadata": {"total_size": 48, "x": 1}, "weight_map": {"u": "m-1"}})
    made = json.loads(index_text(stale.encode(), entries))
    assert made == {"metadata": {"total_size": 72, "x": 1}, "weight_map": weights}
    for strange in (b"", b"[]", b"{}", b"\xff"):
        assert index_text(strange, entries) == strange
