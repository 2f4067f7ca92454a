"""What becomes of each parameter, from manifests alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import pytest

from git_theta.errors import MergeError
from git_theta.merge.planning.actions import WHOLE_FILE, Conflict, Drop, Merge, Take
from git_theta.merge.planning.planner import plan
from git_theta.merge.planning.policy import Policy
from git_theta.merge.planning.versions import BASE
from git_theta.merge.rules.binding import bind
from git_theta.merge.rules.hyperparameters import Words
from git_theta.merge.rules.rules import Method, Rule, parse_rule
from git_theta.merge.rules.strategy import strategy
from tests.support.manifests import alias, manifest, tensor, versions

Side = Annotated[Sequence[bool], Words(("base",))]


# Strategies without torch: a plan asks them only what they declare.
@strategy(verbatim=True)
def take(models: Sequence[Any], base: Any = None, *, side: Side) -> Any: ...


@strategy()
def average(models: Sequence[Any]) -> Any: ...


@strategy()
def shift(base: Any, deltas: Sequence[Any]) -> Any: ...


STRATEGIES = {"take": take, "average": average, "shift": shift}


def no_digest(entry):
    raise AssertionError(f"the bytes of {entry.name} need not be read")


def decide(found, *rules: str, digest=no_digest, **options):
    def lookup(rule: Rule) -> Method:
        chosen = STRATEGIES[rule.strategy]
        return Method(chosen, bind(chosen, rule.given, found.names))

    return plan(found, Policy([parse_rule(rule) for rule in rules], lookup, **options), digest)


def only(found, *rules: str, **options):
    (action,) = decide(found, *rules, **options).actions
    return action


def test_unchanged_parameters_are_taken_from_ours():
    action = only(versions(manifest(w="a"), manifest(w="a"), manifest(w="a")))
    assert (action.side, action.why, action.holders) == (0, "unchanged", (0, 1))


@pytest.mark.parametrize("side", [0, 1])
def test_a_change_on_one_side_is_taken(side):
    words = ["a", "a"]
    words[side] = "b"
    action = only(versions(manifest(w="a"), *(manifest(w=word) for word in words)), "*=average")
    assert (action.side, action.why, action.holders) == (side, "one-sided", (side,))


def test_the_same_change_on_both_sides_is_taken():
    action = only(versions(manifest(w="a"), manifest(w="b"), manifest(w="b")), "*=average")
    assert (action.side, action.why, action.holders) == (0, "same", (0, 1))


def test_a_change_on_both_sides_is_a_conflict_without_a_rule():
    found = versions(manifest(w="a"), manifest(w="b"), manifest(w="c"))
    assert only(found, "other=average") == Conflict("w", "main and dev changed it")


def test_a_change_on_both_sides_is_merged_by_the_first_rule_that_matches():
    found = versions(manifest(w="a"), manifest(w="b"), manifest(w="c"))
    action = only(found, "v=shift", "w=average", "*=shift")
    assert isinstance(action, Merge)
    assert action.rule == parse_rule("w=average")
    assert action.method.strategy is average
    assert action.entry == tensor("w", "b")
    assert (action.entries, action.base) == ((tensor("w", "b"), tensor("w", "c")), tensor("w", "a"))


def test_rules_for_other_files_do_not_count():
    found = versions(manifest(w="a"), manifest(w="b"), manifest(w="c"), path="other.safetensors")
    policy = Policy([Rule("*", "average", path="model*")], lambda rule: pytest.fail("asked"))
    assert plan(found, policy, no_digest).conflicts


def test_additions_and_deletions_on_one_side():
    found = versions(manifest(old="a", w="a"), manifest(w="a", ours="x"), manifest(old="a", w="a"))
    actions = {action.name: action for action in decide(found).actions}
    assert isinstance(actions["old"], Drop)
    assert actions["old"].holders == (0,)
    assert (actions["ours"].side, actions["ours"].why) == (0, "one-sided")


def test_additions_on_both_sides():
    found = versions(manifest(), manifest(same="a", other="b"), manifest(same="a", other="c"))
    actions = {action.name: action for action in decide(found, "*=average").actions}
    assert actions["same"].why == "same"
    assert isinstance(actions["other"], Merge)
    assert actions["other"].base is None


def test_additions_on_two_of_three_sides_are_merged_of_these():
    found = versions(manifest(), manifest(w="a"), manifest(), manifest(w="b"))
    merged = only(found, "*=average")
    assert [entry.chunks for entry in merged.entries] == [
        found.contributors[side].manifest.tensors[0].chunks for side in (0, 2)
    ]
    # A change needs something that it is a change of, and an adapter has a neutral one.
    assert only(found, "*=shift").reason.endswith("shift needs a common ancestor of it")
    grown = {"a.ia3_l": "a"}, {}, {"a.ia3_l": "b"}
    found = versions(manifest(), *(manifest(**tensors) for tensors in grown))
    assert len(only(found, "*=shift").entries) == 2


def test_what_one_side_deleted_and_another_changed_is_a_conflict():
    found = versions(manifest(w="a"), manifest(), manifest(w="b"))
    assert only(found, "*=average").reason == "main deleted it, dev changed it"


@pytest.mark.parametrize(("side", "kind"), [("ours", Drop), ("theirs", Take), ("base", Take)])
def test_a_rule_may_take_a_deletion(side, kind):
    found = versions(manifest(w="a"), manifest(), manifest(w="b"))
    assert isinstance(only(found, f"*=take:side={side}"), kind)


def test_different_shapes_are_a_conflict_that_shows_them():
    found = versions(manifest(w="a"), manifest(w="b"), manifest(tensor("w", "c", shape=(3, 3))))
    expected = "the sides have different shapes (main: [2, 3], dev: [3, 3]); --rows merges those "
    expected += "that all have"
    assert only(found, "*=average").reason == expected


def test_different_dtypes_are_a_conflict_that_shows_them():
    found = versions(manifest(w="a"), manifest(w="b"), manifest(tensor("w", "c", "BF16")))
    expected = "the sides have different dtypes (main: F32, dev: BF16); --widen merges it in F32"
    assert only(found, "*=average").reason == expected


def test_a_compressed_array_that_both_changed_is_no_matter_of_shapes():
    sides = (tensor("w", word, "DEFLATED_F32", (9 - n,)) for n, word in enumerate("abc"))
    found = versions(*map(manifest, sides))
    assert only(found, "*=average").reason == (
        "main and dev changed it, and it is compressed; arrays that numpy.savez saves are merged"
    )
    assert only(found, "*=take:side=theirs").side == 1


@pytest.mark.parametrize("dtype", ["I64", "U8", "BOOL", "F8_E8M0", "C64", "F4", "novel"])
def test_only_floats_are_averaged(dtype):
    found = versions(*(manifest(tensor("w", word, dtype)) for word in "abc"))
    assert (
        only(found, "*=average").reason == f"main and dev changed it, and {dtype} is never averaged"
    )
    assert only(found, "*=take:side=theirs").side == 1


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16", "F8_E4M3"])
def test_every_float_is_averaged(dtype):
    found = versions(*(manifest(tensor("w", word, dtype)) for word in "abc"))
    assert isinstance(only(found, "*=average"), Merge)


def test_a_strategy_that_needs_a_base_does_not_get_one_of_integers():
    found = versions(manifest(tensor("w", "a", "I32")), manifest(w="b"), manifest(w="c"))
    assert only(found, "*=average").base is None
    expected = "main and dev changed it, and shift needs a common ancestor of it"
    assert only(found, "*=shift").reason == expected


def test_a_base_of_another_float_dtype_serves():
    found = versions(manifest(tensor("w", "a", "F16")), manifest(w="b"), manifest(w="c"))
    assert only(found, "*=shift").base == tensor("w", "a", "F16")


def test_a_neutral_element_is_a_base():
    name = "q.ia3_l"
    found = versions(manifest(), *(manifest(tensor(name, word)) for word in "bc"))
    action = only(found, "*=shift")
    assert isinstance(action, Merge)
    assert action.base is None


def test_without_a_common_ancestor():
    found = versions(None, manifest(w="b", v="x"), manifest(w="c", v="x"))
    merges, same = decide(found, "*=average").actions
    assert isinstance(merges, Merge)
    assert same.why == "same"


def test_the_ancestor_may_be_taken():
    found = versions(manifest(w="a"), manifest(w="b"), manifest(w="c"))
    action = only(found, "*=take:side=base")
    assert (action.side, action.entry, action.holders) == (BASE, tensor("w", "a"), ())


def test_what_cannot_be_merged_is_settled_for_a_virtual_ancestor():
    base = manifest(tensor("n", "a", "I64"), w="a")
    sides = [manifest(tensor("n", word, "I64"), tensor("v", word, "I64"), w=word) for word in "bc"]
    actions = {
        s.name: s
        for s in decide(versions(base, *sides), "*=average", fallback_to_base=True).actions
    }
    assert (actions["n"].side, actions["n"].why) == (BASE, "ancestor")
    assert (actions["v"].side, actions["v"].why) == (0, "ancestor")
    assert isinstance(actions["w"], Merge)


def test_parameters_that_one_side_changed_are_merged_on_request():
    integers = [tensor("n", word, "I64") for word in "aab"]
    found = versions(
        manifest(integers[0], w="a", v="a"),
        manifest(integers[1], w="b", v="a"),
        manifest(integers[2], w="a", v="a", u="x"),
    )
    actions = {
        action.name: action for action in decide(found, "*=average", include_one_sided=True).actions
    }
    assert isinstance(actions["w"], Merge)
    assert actions["v"].why == "unchanged"
    assert actions["n"].why == "one-sided"
    assert actions["u"].why == "one-sided"


def test_more_contributors():
    found = versions(manifest(w="a"), manifest(w="b"), manifest(w="a"), manifest(w="c"))
    assert only(found).reason == "main and next changed it"
    assert len(only(found, "*=average").entries) == 3
    found = versions(manifest(w="a"), manifest(w="b"), manifest(w="b"), manifest(w="a"))
    assert (only(found).why, only(found).holders) == ("one-sided", (0, 1))


def test_the_result_has_our_order_then_what_others_add():
    base = manifest(a="x", b="x")
    found = versions(base, manifest(b="x", a="x", z="n"), manifest(y="n", a="x", b="x"))
    assert [action.name for action in decide(found).kept] == ["b", "a", "z", "y"]


# --- chunks that are cut differently --------------------------------------------------------------


def test_equal_bytes_in_other_chunks_are_unchanged():
    whole, halves = tensor("w", "a"), tensor("w", "a", cut=(12, 12))
    found = versions(manifest(whole), manifest(halves), manifest(w="b"))
    digests = {whole: "same", halves: "same", tensor("w", "b"): "other"}
    action = only(found, digest=digests.__getitem__)
    assert (action.side, action.why) == (1, "one-sided")


# --- tied tensors ---------------------------------------------------------------------------------


def test_tied_names_follow_their_tensor():
    tied = alias("head", "w")
    found = versions(*(manifest(tied, w=word) for word in "abc"))
    actions = decide(found, "*=average").actions
    assert isinstance(actions[0], Merge)
    assert (actions[1].entry, actions[1].why) == (tied, "tied")


def test_untying_on_one_side_is_taken():
    tied = alias("head", "w")
    base = manifest(tied, w="a")
    found = versions(base, base, manifest(w="a", head="b"))
    actions = {action.name: action for action in decide(found).actions}
    assert (actions["head"].side, actions["head"].entry) == (1, tensor("head", "b"))


def test_untying_on_one_side_while_the_other_changes_the_tensor_is_a_conflict():
    tied = alias("head", "w")
    found = versions(manifest(tied, w="a"), manifest(tied, w="x"), manifest(w="a", head="b"))
    (conflict,) = decide(found, "*=average").conflicts
    assert conflict.name == "head"
    assert conflict.reason == "the sides tie it differently (main: to w, dev: to nothing)"


def test_a_name_tied_to_what_is_removed_is_a_conflict():
    found = versions(
        manifest(alias("head", "w"), w="a"), manifest(w="a"), manifest(alias("head", "w"), w="a")
    )
    assert not decide(found).conflicts
    found = versions(manifest(w="a"), manifest(), manifest(alias("head", "w"), w="a"))
    (conflict,) = decide(found).conflicts
    assert conflict == Conflict("head", "it is tied to w, which is removed")


# --- whole files ----------------------------------------------------------------------------------


def test_files_of_different_formats_are_decided_on_as_a_whole():
    base = manifest(w="a")
    found = versions(base, manifest(w="b"), manifest(form="torch", w="c"))
    expected = "main and dev changed it, and no tensors are known that all sides have"
    assert decide(found, "*=average").conflicts == [Conflict(WHOLE_FILE, expected)]
    taken = decide(found, "*=take:side=theirs")
    assert taken.whole.side == 1
    assert taken.equal_sides() == [1]


def test_a_file_without_known_tensors():
    opaque = [manifest(form="opaque", w=word) for word in "abc"]
    assert decide(versions(*opaque)).conflicts
    assert decide(versions(opaque[0], opaque[0], opaque[1])).whole.side == 1
    assert decide(versions(None, opaque[0], opaque[0])).whole.why == "same"


# --- the whole plan -------------------------------------------------------------------------------


def test_sides_whose_parameters_are_the_result():
    base = manifest(w="a", v="a")
    equal = decide(versions(base, manifest(w="a", v="a"), manifest(w="b", v="c")))
    assert equal.equal_sides() == [1]
    assert decide(versions(base, base, base)).equal_sides() == [0, 1]
    mixed = decide(versions(base, manifest(w="b", v="a"), manifest(w="a", v="b")))
    assert mixed.equal_sides() == []
    merged = decide(versions(base, manifest(w="b"), manifest(w="c")), "*=average")
    assert merged.equal_sides() == []
    assert [action.name for action in merged.merges] == ["w"]
    deleted = decide(versions(base, manifest(w="a"), manifest(w="a", v="a")))
    assert deleted.equal_sides() == [0]


def test_a_rule_that_cannot_be_followed_is_an_error():
    with pytest.raises(MergeError, match="average has no hyperparameter 'x'"):
        decide(versions(manifest(w="a"), manifest(w="b"), manifest(w="c")), "*=average:x=1")


@pytest.mark.parametrize("shape", [(4, 3), (2, 6), (6,)])
def test_a_shape_that_both_sides_changed_alike_is_a_conflict(shape):
    """Rows that each side added for tokens of its own were averaged."""
    sides = (manifest(tensor("w", word, shape=shape)) for word in "bc")
    found = versions(manifest(w="a"), *sides)
    for name in ("average", "shift"):
        reason = only(found, f"*={name}").reason
        assert f"main and dev changed it from shape [2, 3] to {list(shape)}" in reason
    assert isinstance(only(found, "*=take:side=theirs"), Take)
