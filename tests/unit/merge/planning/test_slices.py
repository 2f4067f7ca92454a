"""Models built of slices: layers of branches, numbered anew."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save

from git_theta.errors import MergeError, UsageError
from git_theta.git import Repository
from git_theta.merge.planning.conflicts import typed
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.slices import config_files
from git_theta.merge.recipe import check_recipe, policy_of, recipe_of
from git_theta.merge.rules.request import Request
from git_theta.merge.rules.slices import Slice, as_behind, parse_slice
from tests.support.mergekit_runs import configuration, tensors
from tests.support.merges import Merger


@pytest.fixture
def merger(repo, monkeypatch, tmp_path):
    monkeypatch.chdir(repo.path)
    with Repository.discover() as found:
        yield Merger(found, tmp_path / "theta")


def of(*texts: str) -> tuple[Slice, ...]:
    return tuple(map(parse_slice, texts))


def versions(merger, *names: str):
    return merger.versions(*(save(tensors(name)) for name in ("base", *names)))


def test_slices_are_those_of_a_run_of_mergekit(merger):
    """Its ranges end before their second number."""
    given = [source for each in configuration("pass")["slices"] for source in each["sources"]]
    assert [each["layer_range"] for each in given] == [[0, 3], [1, 4]]
    chosen = of("main:0-2", "dev:1-3")
    done = merger.execute(versions(merger, "a", "b"), slices=chosen)
    merged, expected = load(merger.file(done.manifest)), tensors("pass")
    assert merged.keys() == expected.keys()
    for name, tensor in merged.items():
        assert torch.equal(tensor, expected[name]), name


def test_the_same_layers_twice_and_those_of_the_ancestor(merger):
    done = merger.execute(
        versions(merger, "a", "b"), slices=of("theirs:3-3", "base:0-1", "dev:3-3")
    )
    merged, base, theirs = load(merger.file(done.manifest)), tensors("base"), tensors("b")
    name = "model.layers.{}.self_attn.k_proj.weight"
    order = [(theirs, 3), (base, 0), (base, 1), (theirs, 3)]
    for number, (side, layer) in enumerate(order):
        assert torch.equal(merged[name.format(number)], side[name.format(layer)])
    assert name.format(4) not in merged


def test_a_rule_of_passthrough_scales_a_layer_by_its_new_number(merger):
    rule = "*.layers.1.self_attn.*=passthrough:scale=0.5"
    done = merger.execute(versions(merger, "a", "b"), rule, slices=of("main:0-0", "dev:2-2"))
    merged, theirs = load(merger.file(done.manifest)), tensors("b")
    for part, scale in (("self_attn.k_proj", 0.5), ("input_layernorm", 1)):
        expected = theirs[f"model.layers.2.{part}.weight"] * scale
        assert torch.equal(merged[f"model.layers.1.{part}.weight"], expected)


def test_a_recipe_of_slices_gives_the_same_plan(merger):
    found = versions(merger, "a", "b")
    plan = merger.plan(found, slices=of("main:0-2", "dev:1-3"), out_dtype="BF16")
    recipe = check_recipe(json.loads(json.dumps(recipe_of(plan, "cpu"))))
    assert recipe["slices"] == [["main", 0, 2], ["dev", 1, 3]]
    again = make_plan(found, policy_of(recipe, found), merger.workspace)
    assert recipe_of(again, "cpu") == recipe_of(plan, "cpu")
    assert [(a.name, a.entry.dtype) for a in again.kept] == [
        (a.name, a.entry.dtype) for a in plan.kept
    ]


@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        (["main:0-9"], "main has the layers 0 to 3, and no 9"),
        (["nobody:0-1"], "no branch of the merge is called 'nobody'"),
        (["main:0-3"] * 2600, "more than 10,000 layers"),
    ],
)
def test_slices_that_there_are_not(merger, slices, reason):
    with pytest.raises(MergeError, match=reason):
        merger.plan(versions(merger, "a", "b"), slices=of(*slices))


def test_slices_are_not_merged_by_another_strategy(merger):
    with pytest.raises(MergeError, match="taken as they are, and not merged by ties"):
        merger.plan(versions(merger, "a", "b"), "*=ties", slices=of("main:0-1"))


def test_a_model_of_two_lists_of_layers_is_refused(merger):
    made = {f"{part}.layers.0.w": torch.ones(2) for part in ("encoder", "decoder")}
    found = merger.versions(*[save(made)] * 2, save({**made, "v": torch.ones(1)}))
    with pytest.raises(MergeError, match=r"here: decoder[.]layers and encoder[.]layers"):
        merger.plan(found, slices=of("main:0-0"))


@pytest.mark.parametrize("text", ["main", "main:3", "main:4-3", ":0-1", "main:0-1000000"])
def test_what_is_no_slice(text):
    with pytest.raises(UsageError, match="is not a slice"):
        parse_slice(text)


def test_the_current_branch_that_is_the_ancestor():
    assert as_behind(of("main:0-1", "rte:2-3"), "main") == (Slice("base", 0, 1), Slice("rte", 2, 3))


def test_the_configuration_has_the_new_number_of_layers(merger):
    plan = merger.plan(versions(merger, "a", "b"), slices=of("main:0-2", "dev:1-3"))
    kinds = ["full", "sliding", "full", "sliding"]
    fields = {"num_hidden_layers": 4, "layer_types": kinds, "hidden_size": 8}
    (made,) = config_files(plan, lambda path: json.dumps(fields).encode()).items()
    assert made[0] == "config.json"
    assert json.loads(made[1]) == {
        "num_hidden_layers": 6,
        "layer_types": ["full", "sliding", "full", "sliding", "full", "sliding"],
        "hidden_size": 8,
    }
    assert config_files(plan, lambda path: None) == {}


def test_hints_repeat_slices_as_they_were_typed():
    asked = Request(slices=of("main:0-2", "a branch:2-3"), allow_nan=True)
    assert typed((), asked) == ["--allow-nan", "--slice main:0-2", "--slice 'a branch:2-3'"]
