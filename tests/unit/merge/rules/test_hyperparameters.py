"""Parameters: what they take, what they refuse, and how they say it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import pytest

from git_theta.errors import MergeError
from git_theta.merge.rules.hyperparameters import (
    Hyperparameter,
    Range,
    Weights,
    Words,
    hyperparameter_of,
)
from git_theta.merge.rules.values import default_value, parse_value

NAMES = ("main", "feature/a")


def declared(
    *,
    flag: bool = False,
    steps: Annotated[int, Range(0, 10)] = 3,
    lambda_: Annotated[float, Range(0, above=True), "a factor"] = 1.0,
    scope: Literal["model", "tensor"] = "model",
    weight: Weights = (1.0,),
    favor: Annotated[Sequence[bool], Words(("none",))] = (),
    needed: Annotated[float, Range(high=1)],
    table: Annotated[Sequence[tuple[str, Sequence[float]]], Range(0)] = (),
) -> None: ...


def parameter(name: str) -> Hyperparameter:
    hints = get_type_hints(declared, include_extras=True)
    return hyperparameter_of(inspect.signature(declared).parameters[name], hints[name])


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("flag", "true", True),
        ("flag", "No", False),
        ("flag", True, True),
        ("steps", "10", 10),
        ("steps", 0, 0),
        ("lambda_", "1e-3", 0.001),
        ("lambda_", 2, 2.0),
        ("scope", "tensor", "tensor"),
        ("weight", "0.5", [0.5, 0.5]),
        ("weight", "[1,-2]", [1.0, -2.0]),
        ("weight", [1, 2], [1.0, 2.0]),
        ("weight", {"feature/a": "3"}, [1.0, 3.0]),
        ("favor", "main", [True, False]),
        ("favor", "theirs", [False, True]),
        ("favor", "none", [False, False]),
        ("favor", [False, True], [False, True]),
        ("table", {"b": {"feature/a": 2}, "a": [1, "3"]}, [["b", [0.0, 2.0]], ["a", [1.0, 3.0]]]),
        ("table", [["b", [0.0, 2.0]], ["a", [1.0, 3.0]]], [["b", [0.0, 2.0]], ["a", [1.0, 3.0]]]),
        ("table", {}, []),
    ],
)
def test_values_resolve_to_what_the_function_takes(name: str, value: Any, expected: Any) -> None:
    resolved = parse_value(parameter(name), value, NAMES)
    assert resolved == expected
    assert type(resolved) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("flag", "maybe", "true or false"),
        ("flag", 1, "true or false"),
        ("steps", "11", "a whole number, 0 to 10"),
        ("steps", "1.5", "a whole number"),
        ("steps", True, "a whole number"),
        ("steps", 1.0, "a whole number"),
        ("lambda_", "0", "a number, above 0"),
        ("lambda_", "nan", "a number"),
        ("lambda_", "inf", "a number"),
        ("lambda_", 10**400, "a number"),
        ("lambda_", False, "a number"),
        ("lambda_", None, "a number"),
        ("needed", "1.5", "at most 1"),
        ("scope", "layer", "model or tensor"),
        ("weight", "heavy", "one for each, any number"),
        ("weight", [1, 2, 3], "3 values for 2 contributors"),
        ("weight", {"feature/b": 1}, "there is no contributor called 'feature/b'"),
        ("favor", "nobody", "there is no contributor called 'nobody'"),
        ("favor", [True], "ours or theirs or"),
        ("table", [1, 2], "a JSON file of names and a number for each contributor, at least 0"),
        ("table", {"a": [1, -1]}, "at least 0"),
        ("table", {"a": [1]}, "1 values for 2 contributors"),
        ("table", {"a": {"nobody": 1}}, "there is no contributor called 'nobody'"),
        ("table", [[1, [1, 1]]], "a JSON file"),
        ("table", [["a", [1, 1], 1]], "a JSON file"),
        ("table", "nowhere.json", "nowhere.json: table: no such file"),
        ("table", "/dev/zero", "/dev/zero: table: a table's file is called *.json"),
    ],
)
def test_other_values_are_refused_in_words(name: str, value: Any, says: str) -> None:
    with pytest.raises(MergeError) as caught:
        parse_value(parameter(name), value, NAMES)
    assert says in str(caught.value)


def test_tables_are_read_from_files(tmp_path: Path) -> None:
    file = tmp_path / "table.json"
    file.write_text('{"a": {"main": 1}}')
    assert parse_value(parameter("table"), str(file), NAMES) == [["a", [1.0, 0.0]]]
    for text in ("{", "[" * 100_000, '"text"'):
        file.write_text(text)
        with pytest.raises(MergeError):
            parse_value(parameter("table"), str(file), NAMES)
    with file.open("wb") as large:
        large.truncate(17 << 20)
    with pytest.raises(MergeError, match="larger than"):
        parse_value(parameter("table"), str(file), NAMES)
    assert default_value(parameter("table"), NAMES) == []


def test_theirs_is_nobody_among_three() -> None:
    with pytest.raises(MergeError, match="there is no contributor called 'theirs'"):
        parse_value(parameter("favor"), "theirs", ("a", "b", "c"))
    assert parse_value(parameter("favor"), "ours", ("a", "b", "c")) == [True, False, False]


def test_defaults_are_spread_over_the_contributors() -> None:
    assert default_value(parameter("weight"), NAMES) == [1.0, 1.0]
    assert default_value(parameter("favor"), NAMES) == [False, False]
    assert default_value(parameter("steps"), NAMES) == 3


def test_a_parameter_without_default_is_required() -> None:
    needed = parameter("needed")
    assert needed.required
    assert not parameter("steps").required
    with pytest.raises(MergeError, match="needed is missing"):
        default_value(needed, NAMES)


def test_a_trailing_underscore_is_not_part_of_the_name() -> None:
    assert (parameter("lambda_").name, parameter("lambda_").doc) == ("lambda", "a factor")


def test_unsupported_types_are_refused_when_declared() -> None:
    argument = inspect.Parameter("data", inspect.Parameter.KEYWORD_ONLY)
    with pytest.raises(TypeError, match="data has the unsupported type"):
        hyperparameter_of(argument, bytes)


def test_what_is_accepted_is_said_in_words() -> None:
    accepted = {name: parameter(name).accepts for name in inspect.signature(declared).parameters}
    assert accepted == {
        "flag": "true or false",
        "steps": "a whole number, 0 to 10",
        "lambda_": "a number, above 0",
        "scope": "model or tensor",
        "weight": "a number for all contributors or one for each, any number",
        "favor": "ours or theirs or a contributor's name or none",
        "needed": "a number, at most 1",
        "table": "a JSON file of names and a number for each contributor, at least 0",
    }
    assert str(Range(0, 1, above=True)) == "above 0 to 1"
    assert str(Range(0)) == "at least 0"
