"""A recipe in a line, as `git theta log` and `git theta diff` print it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from git_theta.core.messages import plural
from git_theta.merge.planning.versions import joined
from git_theta.merge.recipe import Recipe


def describe(recipe: Recipe) -> str:
    """Return a recipe in a line: ``ties(density=0.3) of main and rte``."""
    names = [contributor["name"] for contributor in recipe["contributors"]]
    methods = [_describe_rule(row, names) for row in recipe["rules"]] or ["the changes"]
    best = (
        f", best of {plural(len(recipe['sweep']['points']), 'point')}" if "sweep" in recipe else ""
    )
    return f"{', '.join(dict.fromkeys(methods))} of {joined(names)}{best}"


def _describe_rule(row: Mapping[str, Any], names: Sequence[str]) -> str:
    values = ", ".join(
        f"{key}={_describe_value(value, names, key)}"
        for key, value in row["hyperparameters"].items()
    )
    return (
        f"{row['strategy']}({values})"
        if row["match"] == "*"
        else (f"{row['match']}={row['strategy']}({values})")
    )


def _describe_value(value: object, names: Sequence[str], key: str) -> object:
    """Return a value for a line.

    A contributor, in the recipe a list of truths, by its name; one number for all of them once.
    """
    if isinstance(value, dict) and "strategy" in value:  # another strategy
        return _describe_rule({"match": "*", **value}, names)
    if isinstance(value, dict) and "gradient" in value:
        return value["gradient"]
    if isinstance(value, list) and value and all(isinstance(item, bool) for item in value):
        chosen = (name for name, is_chosen in zip(names, value, strict=False) if is_chosen)
        return next(chosen, "base" if key == "side" else "none")
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        return _describe_value(value[0], names, key)
    return value
