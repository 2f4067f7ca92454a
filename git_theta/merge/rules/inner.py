"""A strategy within a strategy: the hyperparameters of kind ``rule``, as those of ``svc``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from git_theta.errors import MergeError
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.rules import Method, parse_rule
from git_theta.merge.rules.strategy import Strategy


def parse(value: Any) -> tuple[str, Mapping[str, Any], int | None]:
    """Return name, hyperparameters and version (``None``: any) of a strategy, given as a text.

    ``NAME:KEY=VALUE,...``, in brackets or not, or a mapping as in a recipe. Raise ``TypeError`` or
    ``MergeError`` for anything else.
    """
    if isinstance(value, str):
        bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        rule = parse_rule(f"*={bare}")
        return rule.strategy, rule.given, None
    if not isinstance(value, Mapping):
        raise TypeError
    name, given = value.get("strategy"), value.get("hyperparameters", {})
    version = value.get("version")
    if not (isinstance(name, str) and isinstance(given, Mapping)):
        raise TypeError
    if version is not None and type(version) is not int:
        raise TypeError
    return name, given, version


def bind(
    name: str, given: Mapping[str, Any], version: int | None, contributors: Sequence[str]
) -> dict[str, Any]:
    """Return the strategy as a recipe has it, its values checked.

    Raise ``MergeError`` for one that cannot be used within another, or has another version here.
    """
    found = strategy_named(name)
    if reason := _unusable(found):
        raise MergeError(f"{name} cannot be the rule of another strategy: {reason}")
    if version not in (None, found.version):
        raise MergeError(
            f"{name} is version {found.version} here, the merge was made with version {version}",
            hint="install the version of git-theta, or of the strategy's package, that made it",
        )
    values = found.bind(given, contributors)
    return {"strategy": name, "version": found.version, "hyperparameters": values}


def inner_method(value: Mapping[str, Any]) -> Method:
    """Return the method of a bound hyperparameter of kind ``rule``."""
    return Method(strategy_named(value["strategy"]), value["hyperparameters"])


def _unusable(found: Strategy) -> str | None:
    if found.kind != "tensors" or "merge" in found.inputs:
        return "it merges no single tensors" if found.kind != "tensors" else "it has one itself"
    if found.statistic:
        return f"it uses {found.statistic} statistics"
    if found.ordered or found.verbatim:
        return "the order of the contributors means something to it"
    return None
