"""Which rules count, and how they reach the driver."""

from __future__ import annotations

import shlex

import pytest

from git_theta.cli.merge_options import request_of
from git_theta.errors import MergeError, SettingsError, UsageError
from git_theta.git import Repository
from git_theta.merge.rules.request import (
    VARIABLE,
    Request,
    all_rules,
    from_environment,
    typed_options,
)
from git_theta.merge.rules.rules import Rule


@pytest.fixture
def found(repo, monkeypatch):
    monkeypatch.chdir(repo.path)
    with Repository.discover() as opened:
        yield opened


def test_a_request_travels_by_environment():
    rule = Rule("*.b", "ties", {"weight": {"rte": "2"}}, "m*")
    request = Request(
        rules=(rule,),
        include_one_sided=True,
        widen=True,
        allow_stale=True,
        rows="ours",
        out_dtype="BF16",
        collect="/tmp/notes",
        decided="/tmp/decided",
    )
    assert from_environment(request.environment()) == request
    assert from_environment({}) == Request()


def test_options_are_repeated_as_they_were_typed():
    """A hint repeats them, and whoever types the hint gets the same rules."""
    values = ["density=0.3", "weight[my branch]=2.0"]
    rules = ["*.b=ties:density=0.3,weight[a]=1,weight[b]=2", "c d=take:side=ours"]
    request = request_of("ties", values, rules, None)
    words = shlex.split(" ".join(typed_options(request.rules)))
    assert words == [
        *(word for rule in rules for word in ("--rule", rule)),
        *("--strategy", "ties"),
        *(word for value in values for word in ("-p", value)),
    ]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"rules":[1],"include_one_sided":false,"collect":null}']
)
def test_a_variable_that_is_something_else(text):
    with pytest.raises(SettingsError, match="is not what git theta merge writes"):
        from_environment({VARIABLE: text})


def test_the_command_line_comes_first_then_the_team_then_the_user(found, repo):
    repo.write(
        ".theta.toml",
        b'[merge]\nstrategy = "ties"\n[[merge.rules]]\nmatch = "*.b"\nstrategy = "average"\n',
    )
    asked = Request(rules=(Rule("*.w", "slerp"),))
    names = [(rule.match, rule.strategy) for rule in all_rules(asked, found)]
    assert names == [("*.w", "slerp"), ("*.b", "average"), ("*", "ties")]
    repo.git("config", "theta.merge.strategy", "dare_ties:density=0.3")
    assert all_rules(asked, found)[-1] == Rule("*", "dare_ties", {"density": "0.3"})


def test_no_rules(found):
    assert all_rules(Request(), found) == []


def test_unknown_strategies_are_found_without_loading_any(found, repo):
    repo.git("config", "theta.merge.strategy", "tiess")
    with pytest.raises(MergeError, match="there is no strategy called 'tiess'"):
        all_rules(Request(), found)


def test_options_become_rules(monkeypatch):
    monkeypatch.delenv("GIT_THETA_DEVICE", raising=False)
    request = request_of(
        "ties",
        ["density=0.3", "weight.feature/x.1=2"],
        ["*.b=average"],
        None,
        include_one_sided=True,
    )
    assert request.include_one_sided
    assert request.rules == (
        Rule("*.b", "average"),
        Rule("*", "ties", {"density": "0.3", "weight": {"feature/x.1": "2"}}),
    )
    with pytest.raises(UsageError, match="without --strategy"):
        request_of(None, ["density=0.3"], [], None)


def test_the_device_is_for_this_process_and_its_children(monkeypatch):
    monkeypatch.setenv("GIT_THETA_DEVICE", "auto")
    request_of(None, [], [], "cpu")
    import os

    assert os.environ["GIT_THETA_DEVICE"] == "cpu"
