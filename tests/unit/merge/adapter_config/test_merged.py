from __future__ import annotations

import json
from dataclasses import replace

import pytest
from peft.utils.other import get_pattern_key

from git_theta.adapters import config_of
from git_theta.errors import FormatError, MergeError
from git_theta.merge.adapter_config.fields import three_way
from git_theta.merge.adapter_config.merged import as_git_merges, files, needed
from tests.support.adapter_plans import CONFIG, configured, decide, pair, three
from tests.support.manifests import manifest, tensor, versions


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
    decided = decide(configured(found, {**dora, "alpha_pattern": {"q": 16}}, dora, base=dora))
    config = config_of(needed(decided))
    assert [config.scale_of(name, 2) for name in ("l.q", "l.k")] == [8, 2]
    assert as_git_merges(decided)


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
