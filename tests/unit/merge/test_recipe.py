"""What a recipe holds, and recipes from strangers."""

from __future__ import annotations

import copy
import json

import pytest

from git_theta.errors import MergeError
from git_theta.merge.planning.planner import plan
from git_theta.merge.planning.policy import Policy, method_lookup
from git_theta.merge.recipe import check_recipe, policy_of, recipe_of
from git_theta.merge.recipe_text import describe
from git_theta.merge.rules.rules import parse_rule
from tests.support.manifests import manifest, versions

BASE = manifest(v="a", w="a", u="a", x="a")
SIDES = (manifest(v="b", w="b", u="b", x="b"), manifest(v="c", w="c", u="c", x="a"))


def made(*rules: str, base=BASE, **options):
    found = versions(base, *SIDES)
    policy = Policy([parse_rule(rule) for rule in rules], method_lookup(found), **options)
    return recipe_of(plan(found, policy, lambda entry: ""), "cpu"), found


RULES = ("none*=ties", "w=average:weight=[1,3]", "u=take:side=theirs", "*=ties:density=0.5")


def test_a_recipe_has_all_that_decides():
    recipe, _ = made(*RULES)
    assert json.loads(json.dumps(recipe)) == recipe
    assert recipe["path"] == "model.safetensors"
    assert recipe["base"] == {"hash": BASE.hash}
    assert [side["name"] for side in recipe["contributors"]] == ["main", "dev"]
    assert [side["hash"] for side in recipe["contributors"]] == [side.hash for side in SIDES]
    assert [(row["match"], row["strategy"]) for row in recipe["rules"]] == [
        ("w", "average"),
        ("u", "take"),
        ("*", "ties"),
    ]
    assert recipe["rules"][0]["hyperparameters"] == {"weight": [1.0, 3.0], "normalize": True}
    assert recipe["rules"][2]["hyperparameters"]["density"] == [0.5, 0.5]
    assert (recipe["include_one_sided"], recipe["fallback_to_base"], recipe["device"]) == (
        False,
        False,
        "cpu",
    )


def test_a_recipe_gives_the_same_plan():
    recipe, found = made(*RULES, include_one_sided=True)
    again = plan(found, policy_of(recipe, found), lambda entry: "")
    assert recipe_of(again, "cpu") == recipe


def test_an_ancestor_made_for_the_occasion_is_part_of_it():
    import dataclasses

    inner, _ = made("*=average", fallback_to_base=True)
    recipe, _ = made("*=average", base=dataclasses.replace(BASE, recipe=inner))
    assert recipe["base"] == {"hash": BASE.hash, "recipe": inner}
    plain, _ = made(
        "*=average", base=dataclasses.replace(BASE, recipe={**inner, "fallback_to_base": False})
    )
    assert plain["base"] == {"hash": BASE.hash}
    assert made("*=average", base=None)[0]["base"] is None


def test_another_version_of_a_strategy():
    recipe, found = made("*=average")
    recipe["rules"][0]["version"] = 99
    with pytest.raises(MergeError, match="average is version 1 here, the merge was made with"):
        policy_of(recipe, found)


def test_in_a_line():
    assert describe(made("w=average", "*=ties")[0]).startswith("w=average(weight=1.0, ")
    assert describe(made("*=average")[0]).endswith("of main and dev")
    assert "density=[0.2, 0.5]" in describe(made("*=ties:density.dev=0.5")[0])
    for side, shown in (("theirs", "dev"), ("main", "main"), ("base", "base")):
        assert describe(made(f"*=take:side={side}")[0]) == f"take(side={shown}) of main and dev"


PLACES = [
    (),
    ("path",),
    ("include_one_sided",),
    ("contributors",),
    ("contributors", 0, "hash"),
    ("contributors", 0, "name"),
    ("base",),
    ("base", "hash"),
    ("rules",),
    ("rules", 0, "hyperparameters"),
    ("rules", 0, "version"),
    ("rules", 0, "match"),
]


def test_a_recipe_names_no_files():
    """A stranger's could be of anything that is here."""
    recipe, found = made("w=smear")
    recipe["rules"][0]["hyperparameters"]["routing"] = [["*", [1, 2]]]
    assert policy_of(recipe, found)
    recipe["rules"][0]["hyperparameters"]["routing"] = "table.json"
    with pytest.raises(MergeError, match="the recipe in the manifest is malformed"):
        policy_of(recipe, found)


def test_a_recipe_without_contributors():
    with pytest.raises(MergeError, match="the recipe in the manifest is malformed"):
        check_recipe({**made(*RULES)[0], "contributors": [], "rules": []})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", [1.5, "x", [1], {"a": 1}])
def test_a_recipe_from_a_stranger(place, value):
    good, _ = made(*RULES)
    assert check_recipe(good) == good
    recipe = {"recipe": copy.deepcopy(good)}
    *way, last = ("recipe", *place)
    target = recipe
    for key in way:
        target = target[key]
    if type(target[last]) is type(value):
        return
    target[last] = value
    with pytest.raises(MergeError, match="the recipe in the manifest is malformed"):
        check_recipe(recipe["recipe"])


@pytest.mark.parametrize(
    "odd",
    [
        {"out_dtype": "F8"},
        {"layers": {"h": "3"}},
        {"layers": [3]},
        {"tokenizers": [["a"], {}, {}]},
        {"tokenizers": [{}]},
        {"tokenizers": [{"tokenizer.json": "HEAD:secret"}, {}, {}]},
        {"tokenizers": [{"other.json": "0" * 40}, {}, {}]},
        {"slices": [["main", 3, 1]]},
        {"slices": [["main", 0, True]]},
        {"slices": ["abc"]},
        {"slices": [[1, 0, 1]]},
        {"slices": 3},
    ],
    ids=str,
)
def test_wishes_of_a_stranger(odd):
    good, _ = made(*RULES)
    with pytest.raises(MergeError, match="the recipe in the manifest is malformed"):
        check_recipe({**good, **odd})
