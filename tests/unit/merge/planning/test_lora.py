from __future__ import annotations

import pytest

from git_theta.merge.planning.actions import Conflict, Drop, Take, UnitMember
from git_theta.merge.planning.lora import LoraUnit
from git_theta.merge.planning.versions import UNKNOWN
from tests.support.adapter_plans import CONFIG, A, B, configured, decide, pair, reason, three
from tests.support.manifests import alias, manifest, tensor, versions


def test_what_one_side_changed_is_taken_with_both_factors():
    changed = manifest(tensor(A, "b", shape=(2, 5)), pair("a")[1])
    found = versions(manifest(*pair("a")), manifest(*pair("a")), changed)
    actions = decide(found).actions
    assert [(action.name, action.side) for action in actions] == [(A, 1), (B, 1)]


def test_each_side_changing_another_factor_is_a_conflict():
    """Parameter by parameter it would be merged to one side's A times the other's B."""
    ours = manifest(tensor(A, "b", shape=(2, 5)), pair("a")[1])
    theirs = manifest(pair("a")[0], tensor(B, "c", shape=(3, 2)))
    (action,) = decide(versions(manifest(*pair("a")), ours, theirs)).actions
    assert action == Conflict(A, "main and dev changed it")


def test_a_rule_for_either_factor_is_for_both():
    for glob in ("*lora_A*", "*lora_B*"):
        actions = decide(three(), f"{glob}=take:side=theirs").actions
        assert [(type(action), action.side) for action in actions] == [(Take, 1), (Take, 1)]


def test_taking_from_a_side_that_has_none():
    found = versions(manifest(*pair("a")), manifest(*pair("b")), manifest())
    assert all(isinstance(s, Drop) for s in decide(found, "*=take:side=theirs").actions)


def test_ours_or_the_ancestor_s_where_a_merge_must_not_stop():
    actions = decide(three(), "*=average", fallback_to_base=True).actions
    assert [(action.side, action.why) for action in actions] == [(-1, "ancestor")] * 2
    added = versions(manifest(), manifest(*pair("b")), manifest(*pair("c")))
    assert [
        action.side for action in decide(added, "*=average", fallback_to_base=True).actions
    ] == [0, 0]


def test_everything_on_request():
    found = versions(manifest(*pair("a")), manifest(*pair("a")), manifest(*pair("c")))
    assert [type(action) for action in decide(found, "*=svd").actions] == [Take, Take]
    assert [type(action) for action in decide(found, "*=svd", include_one_sided=True).actions] == [
        UnitMember,
        UnitMember,
    ]


# --- what is made ---------------------------------------------------------------------------------


def test_the_unit_knows_shapes_and_scales_beforehand():
    wide = {**CONFIG, "r": 4, "lora_alpha": 16}
    found = versions(
        manifest(*pair("a")), manifest(*pair("b")), manifest(*pair("c", 4)), manifest(*pair("d"))
    )
    known = configured(found, CONFIG, wide, CONFIG)
    (unit,) = decide(known, "*=cat:weight=2").units
    assert isinstance(unit, LoraUnit)
    assert [p.scale for p in unit.pairs] == [2, 4, 2]
    assert (unit.base.scale, unit.scale) == (2, 1)
    assert [entry.shape for entry in unit.results] == [(10, 5), (3, 10)]
    (unit,) = decide(known, "*=svd").units
    assert (unit.scale, unit.results[0].shape) == (2, (2, 5))
    # With weights that add up to one the ancestor's update does not count.
    for weights in ("[0.5,0.25,0.25]", f"{1 / 3}"):
        (unit,) = decide(known, f"*=cat:weight={weights}").units
        assert unit.results[0].shape == (8, 5)


def test_the_order_in_the_file_is_kept():
    sides = [manifest(*pair(word)[::-1]) for word in "abc"]
    actions = decide(configured(versions(*sides)), "*=svd").actions
    assert [(action.name, action.place) for action in actions] == [(B, 1), (A, 0)]


def test_sides_that_never_had_it_do_not_count():
    found = configured(
        versions(manifest(), manifest(*pair("b")), manifest(), manifest(*pair("d"))), base=None
    )
    (unit,) = decide(found, "*=cat:weight=[1,5,3]").units
    assert (unit.sides, unit.values["weight"]) == ((0, 2), [1.0, 3.0])
    assert unit.results[0].shape == (4, 5)


# --- what cannot be merged ------------------------------------------------------------------------


def test_deleted_on_one_side():
    found = versions(manifest(*pair("a")), manifest(*pair("b")), manifest())
    assert reason(found) == "dev deleted it, main changed it"


@pytest.mark.parametrize("method", ["average", "ties", "task_arithmetic"])
def test_strategies_for_numbers(method):
    expected = f"main and dev changed it, and {method} cannot merge LoRA factors"
    assert reason(configured(three()), f"*={method}").startswith(expected)


@pytest.mark.parametrize("method", ["svd", "cat", "concat"])
def test_strategies_for_units_merge_nothing_else(method):
    found = versions(manifest(w="a"), manifest(w="b"), manifest(w="c"))
    what = "soft prompts" if method == "concat" else "LoRA factors"
    assert (
        reason(found, f"*={method}") == f"main and dev changed it, and {method} is for {what} only"
    )


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (pair("c", ins=6), "have updates of different weights (main: [3, 5], dev: [3, 6]"),
        (pair("c", dtype="BF16"), "have different dtypes (main: F32, dev: BF16"),
        ([pair("c")[0], tensor(B, "c", "BF16", (3, 2))], "its factors are F32 and BF16"),
        ([pair("c")[0], tensor(B, "c", "F32", (3, 4))], "[2, 5] and [3, 4] are not a pair of LoRA"),
        ([pair("c")[0], tensor(B, "c", "F32", (3,))], "[2, 5] and [3] are not a pair of LoRA"),
        ([tensor(A, "c", "I8", (2, 5)), tensor(B, "c", "I8", (3, 2))], "its factors are I8 and I8"),
        (pair("c")[:1], "it is not a pair of LoRA factors (A)"),
        ([*pair("c"), tensor(f"{B[:-7]}.bias", "c")], "not a pair of LoRA factors (A, B, B.bias)"),
        ([*pair("c"), tensor(B[:-7], "c", shape=(3, 2))], "not a pair of LoRA factors (A, B)"),
        (pair("c", 0), "[0, 5] and [3, 0] are not a pair"),
        ([*pair("c"), tensor(B.replace("B.weight", "magnitude_vector"), "c")], "magnitude_vector)"),
        ([pair("c")[0], alias(B, A)], "it is not a pair of LoRA factors (A)"),
    ],
)
def test_what_is_no_pair_of_this_weight(theirs, words):
    found = versions(manifest(*pair("a")), manifest(*pair("b")), manifest(*theirs))
    assert words in reason(configured(found))


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (None, "adapter_config.json of dev is not known"),
        (UNKNOWN, "adapter_config.json of dev is not known"),
        ({**CONFIG, "use_dora": True}, "of dev: adapters with use_dora cannot be merged here"),
        ({"peft_type": "LORA", "r": "many"}, "of dev: not a PEFT configuration"),
        ({"r": 2}, "of dev: not a PEFT configuration"),
        ({**CONFIG, "lora_alpha": 0}, "of dev: it is scaled by 0"),
        ({**CONFIG, "lora_alpha": 1e999}, "of dev: not a PEFT configuration"),
        ({**CONFIG, "rank_pattern": {r"(a)\1": 2}}, "of dev: not a PEFT configuration"),
    ],
)
def test_scales_that_are_not_known(theirs, words):
    assert words in reason(configured(three(), CONFIG, theirs))


def test_an_ancestor_whose_scale_is_not_known():
    words = "adapter_config.json of the common ancestor is not known"
    assert reason(configured(three(), CONFIG, CONFIG, base=UNKNOWN)) == words


def test_without_any_configuration_the_rank_stays():
    """LoraFactors inside of some other checkpoint: scales are equal, whatever they are."""
    (unit,) = decide(three(), "*=svd").units
    assert {p.scale for p in unit.pairs} == {1.0}
    assert "there is no adapter_config.json beside it to say so" in reason(three(), "*=cat")


# --- the adapter's configuration is a part of it --------------------------------------------------


def test_alpha_on_one_side_and_factors_on_the_other_are_two_changes():
    """Git's two files would combine to 2 Δx, where the sum of the changes is Δx + Δ0."""
    found = configured(three("a", "a", "b"), {**CONFIG, "lora_alpha": 8}, CONFIG)
    assert reason(found, "none=svd") == "main and dev changed it"
    (unit,) = decide(found, "*=cat").units
    assert [pair.scale for pair in unit.pairs] == [4, 2]
    assert (unit.base.scale, unit.pairs[0].down) == (2, unit.base.down)


def test_alpha_alone_is_the_change_of_a_side():
    found = configured(three("a", "a", "a"), {**CONFIG, "lora_alpha": 8}, CONFIG)
    assert [(a.side, a.why) for a in decide(found, "*=cat").actions] == [(0, "one-sided")] * 2
    found = configured(three("a", "a", "a"), *[{**CONFIG, "lora_alpha": 8}] * 2)
    assert [(a.side, a.why) for a in decide(found, "*=cat").actions] == [(0, "same")] * 2


def test_the_same_factors_with_other_alphas_are_two_changes():
    found = configured(three("a", "b", "b"), {**CONFIG, "lora_alpha": 8}, CONFIG)
    assert reason(found, "none=svd") == "main and dev changed it"
