"""Tensors that a side has by other names."""

from __future__ import annotations

import pytest

from git_theta.manifest import Manifest
from git_theta.merge.planning.actions import Conflict, Merge, Take
from git_theta.merge.planning.planner import plan
from git_theta.merge.planning.policy import Policy, method_lookup
from git_theta.merge.rules.rules import parse_rule
from tests.support.manifests import alias, manifest, tensor, versions

NAMES = ("layer.0.weight", "layer.0.bias", "head.weight")
PREFIXES = ["module.", "_orig_mod.", "model.encoder."]


def of(prefix: str = "", **words: str) -> Manifest:
    """A model with a prefix; a word for the content of a tensor is its last part's."""
    return manifest(*(tensor(prefix + n, words.get(n.replace(".", "_"), n)) for n in NAMES))


def decide(found, *rules: str, near=lambda one, other: False):
    policy = Policy([parse_rule(rule) for rule in rules], method_lookup(found))
    return plan(found, policy, lambda entry: "", near=near)


TUNED = dict.fromkeys([n.replace(".", "_") for n in NAMES], "tuned")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("renamer", [0, 1])
def test_a_prefix_on_one_side_and_training_on_the_other(prefix, renamer):
    """It was a conflict for each tensor, and taking ours left both sets of names."""
    tuned = {key: f"{key} tuned" for key in TUNED}
    sides = [of(**tuned), of(**tuned)]
    sides[renamer] = of(prefix)
    made = decide(versions(of(), *sides))
    assert [(type(a), a.name, a.side) for a in made.actions] == [
        (Take, prefix + name, 1 - renamer) for name in NAMES
    ]
    name = ("main", "dev")[renamer]
    assert made.notes == (f"{name} renamed 3 tensors: {NAMES[0]} is {prefix}{NAMES[0]}",)


def test_a_prefix_that_was_removed():
    made = decide(versions(of("module."), of("module.", layer_0_bias="b"), of()))
    assert [action.name for action in made.actions] == list(NAMES)
    assert {a.name: a.side for a in made.actions if a.why == "one-sided"} == {NAMES[1]: 0}


def test_renamed_and_trained_in_one_commit():
    """Some are equal and tell how names change; the others are near."""
    asked = []

    def near(one, other):
        asked.append((one.name, other.name))
        return True

    theirs = of("net.", layer_0_weight="moved")
    made = decide(versions(of(), of(layer_0_weight="ours"), theirs), "*=average", near=near)
    assert asked == [(NAMES[0], f"net.{NAMES[0]}")]
    actions = {action.name: action for action in made.actions}
    merge = actions[f"net.{NAMES[0]}"]
    assert isinstance(merge, Merge)
    assert merge.base is not None
    assert len(actions) == 3


def test_in_doubt_a_conflict_that_says_so():
    theirs = of("net.", **{key: f"{key} other" for key in TUNED})
    made = decide(versions(of(), of(layer_0_bias="b"), theirs))
    (conflict,) = made.conflicts
    assert conflict.reason == (
        "dev deleted it, main changed it; dev may have renamed it to net.layer.0.bias"
    )


def test_the_same_rename_on_both_sides():
    made = decide(versions(of(), of("m."), of("m.", layer_0_bias="b")))
    assert [action.name for action in made.actions] == [f"m.{name}" for name in NAMES]


def test_different_renames_are_a_conflict():
    """Both names would be in the result."""
    made = decide(versions(of(), of("a."), of("b.")))
    assert {c.name for c in made.conflicts} == {p + n for n in NAMES for p in ("a.", "b.")}
    assert (
        "the sides renamed head.weight differently (main: a.head.weight, dev: b.head.weight)"
        in {c.reason for c in made.conflicts}
    )


def test_equal_contents_go_by_the_ends_of_names():
    same = dict.fromkeys(TUNED, "zeros")
    made = decide(versions(of(**same), of(**same | {"layer_0_bias": "b"}), of("m.", **same)))
    assert {a.name: a.side for a in made.actions if a.why == "one-sided"} == {"m.layer.0.bias": 0}
    assert not made.conflicts


def test_tied_names_follow():
    base = manifest(tensor("a", "x"), alias("b", "a"))
    theirs = manifest(tensor("m.a", "x"), alias("m.b", "m.a"))
    made = decide(versions(base, manifest(tensor("a", "y"), alias("b", "a")), theirs))
    assert {action.name for action in made.actions} == {"m.a", "m.b"}


def test_a_tensor_that_was_copied_is_not_renamed():
    theirs = manifest(tensor("w", "a"), tensor("x.w", "a"))
    made = decide(versions(manifest(w="a"), manifest(w="b"), theirs))
    assert {a.name: a.side for a in made.actions} == {"w": 0, "x.w": 1}


def test_a_result_with_a_tensor_by_two_names_is_told():
    large = [tensor(name, "same", shape=(32, 64), cut=(8192,)) for name in ("one", "two")]
    found = versions(manifest(w="a"), manifest(large[0], w="a"), manifest(large[1], w="a"))
    notes = decide(found).notes
    assert notes == ("the result has a tensor by two names: one and two are equal",)
    both = versions(manifest(w="a"), manifest(*large, w="a"), manifest(w="b"))
    assert not decide(both).notes


def test_what_is_only_deleted_and_added_stays_so():
    found = versions(manifest(w="a"), manifest(v="b"), manifest(w="a"))
    made = decide(found)
    assert [action.name for action in made.actions] == ["v", "w"]
    assert not any(isinstance(action, Conflict) for action in made.actions)
