"""Rules from the command line and from .theta.toml; the first that matches counts."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.errors import MergeError, SettingsError
from git_theta.merge.rules.notation import parse_values
from git_theta.merge.rules.rules import (
    Rule,
    anchored,
    as_behind,
    first_match,
    parse_rule,
    rules_of,
    without,
)

WORDS = st.text("abc_", min_size=1)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("*=average", Rule("*", "average")),
        ("*.bias=take:side=ours", Rule("*.bias", "take", {"side": "ours"})),
        (
            "layer.[0-9].*=ties:density=0.2,scope=tensor",
            Rule("layer.[0-9].*", "ties", {"density": "0.2", "scope": "tensor"}),
        ),
        ("a=average:weight=[1,2]", Rule("a", "average", {"weight": "[1,2]"})),
        (
            "a=ties:weight[main]=2,weight[x,y=z]=3,lambda=1",
            Rule("a", "ties", {"weight": {"main": "2", "x,y=z": "3"}, "lambda": "1"}),
        ),
    ],
)
def test_rules_are_read_from_the_command_line(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@given(match=WORDS, strategy=WORDS, given=st.dictionaries(WORDS, WORDS))
def test_a_written_rule_reads_back(match: str, strategy: str, given: dict[str, str]) -> None:
    items = ",".join(f"{key}={value}" for key, value in given.items())
    text = f"{match}={strategy}" + (f":{items}" if items else "")
    assert parse_rule(text) == Rule(match, strategy, given)


@pytest.mark.parametrize("text", ["", "average", "=average", "*=", "*=:density=1"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(MergeError, match="is not a rule"):
        parse_rule(text)


@pytest.mark.parametrize("items", [["density"], ["=1"], ["weight[]=1"]])
def test_what_is_no_value_is_refused(items: list[str]) -> None:
    with pytest.raises(MergeError, match="is not KEY=VALUE"):
        parse_values(items)


def test_a_value_for_all_and_one_for_each_exclude_each_other() -> None:
    with pytest.raises(MergeError, match="second value for weight"):
        parse_values(["weight=1", "weight[main]=2"])


def test_the_first_rule_that_matches_counts() -> None:
    rules = [Rule("*.bias", "average"), Rule("a.*", "ties", path="models/*"), Rule("*", "slerp")]
    assert first_match(rules, "a.bias") is rules[0]
    assert first_match(rules, "a.weight", "models/deep/x.pt") is rules[1]
    assert first_match(rules, "a.weight", "x.pt") is rules[2]
    assert first_match(rules[:1], "a.BIAS") is None


def test_rules_are_read_from_the_teams_file() -> None:
    team = {
        "merge": {
            "rules": [
                {"match": "*.norm", "strategy": "average", "weight": {"main": 2.0}},
                {"match": "*", "strategy": "ties", "path": "*.pt", "density": 0.3},
            ]
        }
    }
    assert rules_of(team) == [
        Rule("*.norm", "average", {"weight": {"main": 2.0}}),
        Rule("*", "ties", {"density": 0.3}, path="*.pt"),
    ]
    assert rules_of({}) == []


@pytest.mark.parametrize(
    ("team", "says"),
    [
        ({"merge": 1}, "not a list of tables"),
        ({"merge": {"rules": {"*": "ties"}}}, "not a list of tables"),
        ({"merge": {"rules": [{"match": "*", "strategy": "ties"}, {"match": "*"}]}}, "rule 2"),
        ({"merge": {"rules": ["ties"]}}, "rule 1"),
        ({"merge": {"rules": [{"match": 1, "strategy": "ties"}]}}, "rule 1"),
        ({"merge": {"strategi": "ties"}}, "unknown key merge.strategi"),
        ({"merge": {"rule": [{"match": "*", "strategy": "ties"}]}}, "merge.rule"),
        ({"merg": {"strategy": "ties"}}, "unknown key merg"),
        ({"rules": [{"match": "*", "strategy": "ties"}]}, "unknown key rules"),
        ({"merge": {"rules": [{"match": "*", "strategy": "ties", "path": 1}]}}, "rule 1"),
    ],
)
def test_a_wrong_teams_file_says_where(team: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        rules_of(team)
    assert says in str(caught.value)
    assert caught.value.path == ".theta.toml"


def test_a_rule_is_checked_before_any_tensor_is_loaded() -> None:
    assert parse_rule("*=ties:density=0.5").bind(["a", "b"]).values["density"] == [0.5, 0.5]
    with pytest.raises(MergeError) as caught:
        parse_rule("*.bias=ties:densty=0.5").bind(["a", "b"])
    text = str(caught.value)
    assert "rule '*.bias': ties has no hyperparameter 'densty'" in text
    assert "did you mean density? known ones: density, weight, lambda, normalize, scope" in text
    with pytest.raises(MergeError, match="did you mean ties"):
        parse_rule("*=tie").bind(["a", "b"])


def test_values_of_branches_that_do_not_have_a_checkpoint_are_left_out() -> None:
    for weight in ("[1,2,3]", "1,2,3", {"a": "1", "b": "2", "c": "3"}):
        rule = Rule("*", "ties", {"weight": weight, "density": "0.5"})
        left = without(rule, {"b"}, "abc")
        assert left.bind(["a", "c"]).values["weight"] == [1, 3]
    # Of three branches, but over the depth of the model.
    gradient = Rule("*", "slerp", {"t": "[0,0.5,1]"})
    assert without(gradient, {"b"}, "abc").given == gradient.given
    assert without(rule, set(), "abc") is rule


def test_ours_where_the_current_branch_is_the_common_ancestor() -> None:
    def side(name: str, *others: str) -> object:
        return as_behind(Rule("*", "take", {"side": name}), "main", others).given["side"]

    assert [side(name, "rte") for name in ("ours", "main", "theirs")] == ["base", "base", "rte"]
    assert (side("ours", "rte", "sst"), side("theirs", "rte", "sst")) == ("base", "theirs")
    rule = Rule("*", "average", {"weight": {"rte": 2}})
    assert as_behind(rule, "main", ["rte"]) is rule
    for values in ({"weight": {"ours": 2}}, {"favor": "ours"}):
        with pytest.raises(MergeError, match="of ours: main has nothing of its own"):
            as_behind(Rule("*", "fisher", values), "main", ["rte", "sst"])


def test_rules_are_read_without_torch() -> None:
    program = (
        "import sys; from git_theta.merge.rules import hyperparameters, rules, strategy; "
        "rules.parse_rule('*=ties:density=0.2'); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_files_that_a_rule_names_are_looked_for_where_it_stands(tmp_path) -> None:
    rule = Rule("*", "smear", {"routing": "a/table.json", "weight": 2, "other": "json"})
    given = anchored(rule, tmp_path).given
    assert given == {"routing": str(tmp_path / "a/table.json"), "weight": 2, "other": "json"}
    assert anchored(Rule("*", "x", {"routing": "/t.json"}), tmp_path).given["routing"] == "/t.json"
