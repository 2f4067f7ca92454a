"""LoRA updates and prompts in a plan: what is decided together, and what cannot be merged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from peft.utils.other import get_pattern_key

from git_theta.adapters import config_of
from git_theta.errors import FormatError, MergeError
from git_theta.merge.adapter_config.fields import three_way
from git_theta.merge.adapter_config.merged import as_git_merges, files, needed
from git_theta.merge.planning.actions import Conflict, Drop, Plan, Take, UnitMember
from git_theta.merge.planning.groups import Place, place_of
from git_theta.merge.planning.lora import LoraUnit
from git_theta.merge.planning.planner import plan
from git_theta.merge.planning.policy import Policy, method_lookup
from git_theta.merge.planning.soft_prompts import PromptUnit
from git_theta.merge.planning.versions import UNKNOWN, Versions
from git_theta.merge.rules.rules import parse_rule
from tests.support.manifests import alias, manifest, tensor, versions

A, B = "base_model.model.l.q.lora_A.weight", "base_model.model.l.q.lora_B.weight"
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}


def pair(
    word: str, rank: int = 2, dtype: str = "F32", ins: int = 5, outs: int = 3, at: str = "l.q"
):
    """Entries of a pair of factors whose content ``word`` stands for."""
    names = (f"base_model.model.{at}.lora_{role}.weight" for role in "AB")
    shapes = ((rank, ins), (outs, rank))
    return [tensor(n, word, dtype, shape) for n, shape in zip(names, shapes, strict=True)]


def decide(found: Versions, *rules: str, **options) -> Plan:
    policy = Policy([parse_rule(rule) for rule in rules], method_lookup(found), **options)
    return plan(found, policy, lambda entry: "")


def configured(found: Versions, *configs, base=CONFIG) -> Versions:
    """With configurations of the contributors' adapters; CONFIG for all unless given."""
    given = configs or [CONFIG] * len(found.contributors)
    sides = zip(found.contributors, given, strict=True)
    contributors = tuple(replace(side, adapter=config) for side, config in sides)
    return replace(found, contributors=contributors, base_adapter=base)


def three(base: str = "a", ours: str = "b", theirs: str = "c", **shape) -> Versions:
    return versions(*(manifest(*pair(word, **shape)) for word in (base, ours, theirs)))


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (A, Place("base_model.model.l.q", "", "A")),
        (B, Place("base_model.model.l.q", "", "B")),
        ("q.lora_A.default.weight", Place("q", "default", "A")),
        ("q.lora_B.my.name.weight", Place("q", "my.name", "B")),
        ("q.lora_B.bias", Place("q", "", "B.bias")),
        ("q.lora_embedding_A", Place("q", "", "A")),
        ("q.lora_embedding_B.default", Place("q", "default", "B")),
        ("q.lora_magnitude_vector", Place("q", "", "magnitude_vector")),
        ("q.lora_magnitude_vector.default.weight", Place("q", "default", "magnitude_vector")),
        ("q.weight", None),
        ("explora_A.weight", None),
        ("lora_A.weight", None),
        (".lora_A.weight", None),
        ("q.lora_", None),
        ("q.lora_0.weight", None),
        ("q.lora_A", Place("q", "", "A")),
        ("q.lora_A.x.lora_B.weight", Place("q", "x.lora_B", "A")),
        ("q.lora_A...!", Place("q", ".", "A.!")),
    ],
)
def test_names_of_factors(name, place):
    assert place_of(name) == place


def test_a_module_by_another_name_is_another_module():
    """Both are called q in the configuration: each has factors of its own."""
    names = [f"{stem}q.lora_{role}.weight" for stem in ("", "base_model.model.") for role in "AB"]
    shapes = [(2, 5), (3, 2)] * 2
    sides = (
        manifest(*(tensor(n, word, "F32", s) for n, s in zip(names, shapes, strict=True)))
        for word in "abc"
    )
    units = decide(configured(versions(*sides)), "*=svd").units
    assert [(unit.name, unit.module) for unit in units] == [(names[0], "q"), (names[2], "q")]


# --- both factors or none -------------------------------------------------------------------------


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


def reason(found: Versions, *rules: str) -> str:
    conflicts = decide(found, *(rules or ["*=svd"])).conflicts
    assert len(conflicts) == 1
    return conflicts[0].reason


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
        ([pair("c")[0], tensor(B, "c", "F32", (3, 4))], "[2, 5] and [3, 4] are no pair of LoRA"),
        ([pair("c")[0], tensor(B, "c", "F32", (3,))], "[2, 5] and [3] are no pair of LoRA"),
        ([tensor(A, "c", "I8", (2, 5)), tensor(B, "c", "I8", (3, 2))], "its factors are I8 and I8"),
        (pair("c")[:1], "it is no pair of LoRA factors (A)"),
        ([*pair("c"), tensor(f"{B[:-7]}.bias", "c")], "no pair of LoRA factors (A, B, B.bias)"),
        ([*pair("c"), tensor(B[:-7], "c", shape=(3, 2))], "no pair of LoRA factors (A, B)"),
        (pair("c", 0), "[0, 5] and [3, 0] are no pair"),
        ([*pair("c"), tensor(B.replace("B.weight", "magnitude_vector"), "c")], "magnitude_vector)"),
        ([pair("c")[0], alias(B, A)], "it is no pair of LoRA factors (A)"),
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


# --- prompts --------------------------------------------------------------------------------------


def prompt(word: str, tokens: int, width: int = 4, dtype: str = "F32"):
    return tensor("prompt_embeddings", word, dtype, (tokens, width))


PROMPT = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 2}


def test_a_prompt_of_all_tokens():
    found = versions(manifest(), *(manifest(prompt(word, n)) for word, n in (("b", 2), ("c", 6))))
    (unit,) = decide(configured(found, PROMPT, PROMPT, base=None), "*=concat").units
    assert isinstance(unit, PromptUnit)
    assert (unit.results[0].shape, unit.parts) == ((8, 4), 1)
    two = {**PROMPT, "num_transformer_submodules": 2}
    decided = decide(configured(found, two, two, base=None), "*=concat")
    assert decided.units[0].parts == 2
    assert needed(decided)["num_virtual_tokens"] == 4
    # A prefix is keys and values for each token, once, whatever the model.
    prefix = {**two, "peft_type": "PREFIX_TUNING"}
    decided = decide(configured(found, prefix, prefix, base=None), "*=concat")
    assert decided.units[0].parts == 1
    assert needed(decided)["num_virtual_tokens"] == 8


def test_a_prompt_of_one_side_has_that_side_s_number_of_tokens():
    found = versions(manifest(), *(manifest(prompt(word, n)) for word, n in (("b", 2), ("c", 6))))
    theirs = {**PROMPT, "num_virtual_tokens": 6}
    decided = decide(configured(found, PROMPT, theirs, base=None), "*=take:side=theirs")
    assert needed(decided)["num_virtual_tokens"] == 6


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (prompt("c", 2, 5), "prompts of different widths (main: (4,), dev: (5,))"),
        (prompt("c", 2, dtype="F16"), "have different dtypes"),
        (prompt("c", 3), "3 tokens are not 2 prompts of the same length"),
        (tensor("prompt_embeddings", "c", "F32", (4,)), "different widths"),
        (prompt("c", 0), "F32 [0, 4] is no prompt"),
    ],
)
def test_what_is_no_prompt_or_another(theirs, words):
    two = {**PROMPT, "num_transformer_submodules": 2}
    found = versions(manifest(), manifest(prompt("b", 2)), manifest(theirs))
    assert words in reason(configured(found, two, two, base=None), "*=concat")


def test_prompts_whose_configuration_is_not_known():
    found = versions(manifest(), manifest(prompt("b", 2)), manifest(prompt("c", 2)))
    words = "adapter_config.json of main and dev is not known"
    assert reason(configured(found, UNKNOWN, UNKNOWN), "*=concat") == words
    assert decide(found, "*=concat").units  # without one, there is nothing to keep in action


# --- the configuration ----------------------------------------------------------------------------


def test_key_by_key_what_one_side_changed():
    base = {"a": 1, "b": 1, "c": 1, "gone": 1}
    sides = [{"a": 2, "b": 1, "c": 2, "new": 1}, {"a": 1, "b": 3, "c": 3}]
    assert three_way(base, sides) == {"a": 2, "b": 3, "c": 2, "new": 1}


def test_a_merge_to_the_rank_of_ours_leaves_it_to_git():
    decided = decide(configured(three()), "*=svd")
    assert needed(decided) == CONFIG
    assert as_git_merges(decided)
    assert files(decided, b'{"peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":["q"]}') == {}
    assert list(files(decided, b"<<<<<<<")) == ["adapter_config.json"]
    assert list(files(decided, None)) == ["adapter_config.json"]


def test_what_sides_say_of_the_same_tensors_in_different_ways_is_not_left_to_git():
    """Git leaves a conflict: settled for theirs by hand, the factors would mean something else."""
    theirs = {**CONFIG, "lora_alpha": 8}
    decided = decide(configured(three(), {**CONFIG, "lora_alpha": 2}, theirs), "*=svd")
    assert needed(decided)["lora_alpha"] == 2
    assert not as_git_merges(decided)
    assert as_git_merges(decide(configured(three(), CONFIG, theirs), "*=take:side=theirs"))


def test_a_scale_that_one_side_changed_alone():
    """The factors are the same; that side means another multiple of their product."""
    same = versions(*[manifest(*pair("a"), tensor("n", word)) for word in "abc"])
    decided = decide(configured(same, CONFIG, {**CONFIG, "lora_alpha": 8}), "*=take:side=ours")
    assert needed(decided)["lora_alpha"] == 8


def test_what_else_a_configuration_says_stays():
    decided = decide(configured(three()), "*=cat")
    before = {**CONFIG, "lora_dropout": 0.5, "rank_pattern": {"other": 3}}
    (text,) = files(decided, json.dumps(before).encode()).values()
    assert json.loads(text) == {**needed(decided), "lora_dropout": 0.5}


def test_configurations_of_what_is_not_two_factors_are_not_interpreted():
    config = {"peft_type": "ADALORA", "r": {}, "target_modules": ["q"]}
    theirs = {**config, "init_r": 3, "task_type": "X"}
    found = configured(three(), config, theirs, base=config)
    # Of what is taken whole, the side's own words hold, but for those that mean no tensor.
    assert needed(decide(found, "*=take:side=ours")) == {**config, "task_type": "X"}
    assert needed(decide(found, "*=take:side=theirs")) == theirs
    more = [[*pair(q), *pair(k, at="l.k")] for q, k in ("aa", "ba", "ab")]
    found = configured(versions(*(manifest(*m) for m in more)), config, theirs, base=config)
    assert needed(decide(found)) == theirs


@pytest.mark.parametrize("option", [{"use_dora": True}, {"init_lora_weights": "pissa"}])
def test_taking_an_adapter_that_cannot_be_merged(option):
    theirs = {**CONFIG, "r": 3, "lora_alpha": 12, **option}
    found = versions(manifest(), manifest(*pair("b")), manifest(*pair("c", 3)))
    decided = decide(configured(found, CONFIG, theirs, base=None), "*=take:side=theirs")
    assert needed(decided) == theirs
    (text,) = files(decided, json.dumps(CONFIG).encode()).values()
    assert json.loads(text) == theirs


def test_each_update_of_an_adapter_that_cannot_be_merged_keeps_its_scale():
    """Taking asks for ranks and scales alone, which DoRA has as well."""
    dora = {**CONFIG, "use_dora": True, "target_modules": ["q", "k"]}
    more = [[*pair(q), *pair(k, at="l.k")] for q, k in ("aa", "ba", "ab")]
    found = versions(*(manifest(*m) for m in more))
    decided = decide(configured(found, {**dora, "lora_alpha": 16}, dora, base=dora))
    config = config_of(needed(decided))
    assert [config.scale_of(name, 2) for name in ("l.q", "l.k")] == [8, 2]
    assert not as_git_merges(decided)


def test_updates_of_different_kinds_are_no_adapter():
    """A magnitude that is not there would be 1 for updates without one."""
    more = [[*pair(q), *pair(k, at="l.k")] for q, k in ("aa", "ba", "ab")]
    found = versions(*(manifest(*m) for m in more))
    plain = {**CONFIG, "target_modules": ["q", "k"], "use_dora": False}
    dora = {**plain, "use_dora": True}
    with pytest.raises(MergeError, match=r"of different kinds .*\(main: plain; dev: use_dora\)"):
        needed(decide(configured(found, plain, dora, base=plain)))
    # Of what both have just so, the one that changed it says what it is.
    same = versions(*(manifest(*pair(w), tensor("n", n)) for w, n in ("aa", "ab", "ac")))
    decided = decide(configured(same, plain, dora, base=plain), "n=average")
    assert not decided.equal_sides()
    assert needed(decided) == {**dora, "target_modules": ["q"]}


def test_an_adapter_is_taken_whole_without_being_understood():
    odd = {**CONFIG, "alpha_pattern": {"(?!x).*q": 8}}
    found = configured(three(), CONFIG, odd)
    assert needed(decide(found, "*=take:side=theirs")) == odd
    assert needed(decide(found, "*=take:side=ours")) == CONFIG


def test_modules_that_one_side_saves():
    """Added on both sides: there is no ancestor that says which of them changed it."""
    found = versions(manifest(), manifest(*pair("b")), manifest(*pair("c"), tensor("head", "c")))
    theirs = {**CONFIG, "modules_to_save": ["head"]}
    fields = needed(decide(configured(found, CONFIG, theirs, base=None), "*=svd"))
    assert fields["modules_to_save"] == ["head"]


def test_equal_configurations_stay_as_they_are():
    odd = {"peft_type": "LORA", "r": "many"}
    decided = decide(configured(three(), odd, odd, base=CONFIG), "*=take:side=ours")
    assert needed(decided) == odd


def test_a_malformed_configuration_is_named():
    odd = {"peft_type": "LORA", "r": "many"}
    more = [[*pair(q), *pair(k, at="l.k")] for q, k in ("aa", "ba", "ab")]
    found = configured(versions(*(manifest(*m) for m in more)), CONFIG, odd)
    with pytest.raises(FormatError) as caught:
        needed(decide(replace(found, path="a/adapter_model.safetensors")))
    assert caught.value.path == "a/adapter_config.json"


def test_another_rank_is_written():
    decided = decide(configured(three()), "*=cat")
    wanted = {"r": 6, "lora_alpha": 6, "rank_pattern": {}, "alpha_pattern": {}, "use_rslora": False}
    assert needed(decided) == {**CONFIG, **wanted}
    assert not as_git_merges(decided)


def test_patterns_for_the_modules_that_differ():
    more = [*pair("c"), *pair("n", 3, at="l.k"), *pair("m", at="l.v"), *pair("p", at="l.w")]
    theirs = {**CONFIG, "target_modules": ["q", "k", "v", "w"], "rank_pattern": {"k": 3}}
    theirs["alpha_pattern"] = {"l.k": 5}
    found = versions(manifest(*pair("a")), manifest(*pair("b")), manifest(*more))
    fields = needed(decide(configured(found, CONFIG, theirs), "*=cat"))
    assert (fields["r"], fields["lora_alpha"]) == (2, 4)  # of v and w, the most common
    assert fields["rank_pattern"] == {"l.q": 6, "l.k": 3}
    assert fields["alpha_pattern"] == {"l.q": 6, "l.k": 5}
    assert fields["target_modules"] == ["q", "k", "v", "w"]


def test_a_pattern_for_a_module_whose_name_ends_another_s():
    """PEFT takes a pattern for the end of a name, so that of one would be the other's too."""
    inner, outer = "l.q", "m.l.q"
    sides = [manifest(*pair(w, at=inner), *pair("x", at=outer), *pair("y", at="z")) for w in "abc"]
    fields = needed(decide(configured(versions(*sides)), "*=cat"))
    assert fields["rank_pattern"] == {r"^l\.q": 6}
    config = config_of(fields)
    assert [config.rank_of(name) for name in (inner, outer, "z")] == [6, 2, 2]
    for name, key in ((inner, r"^l\.q"), (outer, outer)):
        assert get_pattern_key(fields["rank_pattern"], name) == key


def test_modules_chosen_in_ways_that_cannot_be_joined_are_named():
    added = versions(manifest(), manifest(*pair("b")), manifest(*pair("c")))

    def merged(*configs) -> dict[str, object]:
        decided = decide(configured(added, *configs, base=None), "*=svd")
        assert not decided.conflicts
        return needed(decided)

    layers = {**CONFIG, "layers_to_transform": [0]}
    fields = merged(CONFIG, layers)
    assert (fields["target_modules"], fields["layers_to_transform"]) == (["l.q"], None)
    assert merged(layers, layers) == layers
    pattern, everything = ({**CONFIG, "target_modules": word} for word in (".*q", "all-linear"))
    assert merged(CONFIG, pattern)["target_modules"] == ["q"]
    assert merged(pattern, everything)["target_modules"] == ["l.q"]
    assert merged(everything, everything)["target_modules"] == "all-linear"


def test_where_a_side_has_none_nothing_is_written():
    decided = decide(configured(three(), CONFIG, None), "*=take:side=ours")
    assert needed(decided) is None
    assert as_git_merges(decided)
