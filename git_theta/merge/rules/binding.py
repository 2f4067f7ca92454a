"""Values for every hyperparameter of a strategy, checked before any tensor is loaded.

A hyperparameter of kind ``rule`` (``svc`` has one) is another strategy with values of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from git_theta.errors import MergeError
from git_theta.merge.rules import gradients
from git_theta.merge.rules.hyperparameters import Hyperparameter
from git_theta.merge.rules.notation import parse_method
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.strategy import Strategy
from git_theta.merge.rules.values import default_value, not_accepted, parse_value, unknown


def bind(
    strategy: Strategy, given: Mapping[str, Any], contributors: Sequence[str], *, some: bool = False
) -> dict[str, Any]:
    """Return the value of every hyperparameter, as the function and the recipe (JSON) take it.

    ``given`` are the user's values, strings or of their own type; ``contributors`` the names of
    what is merged. Raise ``MergeError`` for an unknown hyperparameter, for a value that one does
    not take, and for a number of contributors that the strategy cannot merge, unless
    only ``some`` of them have each tensor.
    """
    known = [hyperparameter.name for hyperparameter in strategy.hyperparameters]
    for name in given:
        if name not in known:
            raise unknown(f"{strategy.name} has no hyperparameter", name, known)
    if not some:
        strategy.check_number(len(contributors))
    values = {each.name: _value(each, given, contributors) for each in strategy.hyperparameters}
    _check(strategy, values)
    return values


def _value(
    hyperparameter: Hyperparameter, given: Mapping[str, Any], contributors: Sequence[str]
) -> Any:
    name = hyperparameter.name
    if hyperparameter.kind == "rule":
        written = given[name] if name in given else default_value(hyperparameter, contributors)
        return _inner(hyperparameter, written, contributors)
    if name in given:
        return parse_value(hyperparameter, given[name], contributors)
    return default_value(hyperparameter, contributors)


def _check(strategy: Strategy, values: Mapping[str, Any]) -> None:
    depths = sorted(gradients.places(values))
    if depths and strategy.scope(gradients.at(values, 0)) == "model":
        raise MergeError(
            f"{strategy.name} has one value for the whole model, and no gradient over its layers",
            hint="-p scope=tensor lets it have one" if "scope" in values else None,
        )
    if strategy.check:
        for depth in depths or [0.0]:
            strategy.check(gradients.at(values, depth))


def _inner(
    hyperparameter: Hyperparameter, written: Any, contributors: Sequence[str]
) -> dict[str, Any]:
    """Return another strategy with its version and the values of its hyperparameters.

    Raise ``MergeError`` for one that cannot be used within another, or has another version here.
    """
    try:
        name, given, version = _parts(written)
    except TypeError as error:
        raise not_accepted(hyperparameter, written) from error
    found = strategy_named(name)
    if reason := _unusable(found):
        raise MergeError(f"{name} cannot be the rule of another strategy: {reason}")
    if version not in (None, found.version):
        raise MergeError(
            f"{name} is version {found.version} here, the merge was made with version {version}",
            hint="install the version of git-theta, or of the strategy's package, that made it",
        )
    values = bind(found, given, contributors)
    return {"strategy": name, "version": found.version, "hyperparameters": values}


def _parts(written: Any) -> tuple[str, Mapping[str, Any], int | None]:
    """Return name, hyperparameters and version (``None``: any) of a strategy.

    It is written ``NAME:KEY=VALUE,...``, in brackets or not, or as a mapping as in a recipe. Raise
    ``TypeError`` or ``MergeError`` for anything else.
    """
    if isinstance(written, str):
        bare = written[1:-1] if written.startswith("[") and written.endswith("]") else written
        return (*parse_method(bare), None)
    if not isinstance(written, Mapping):
        raise TypeError
    name, given = written.get("strategy"), written.get("hyperparameters", {})
    version = written.get("version")
    if not (isinstance(name, str) and isinstance(given, Mapping)):
        raise TypeError
    if version is not None and type(version) is not int:
        raise TypeError
    return name, given, version


def _unusable(found: Strategy) -> str | None:
    if found.kind != "tensors" or "merge" in found.inputs:
        return "it merges no single tensors" if found.kind != "tensors" else "it has one itself"
    if found.statistic:
        return f"it uses {found.statistic} statistics"
    if found.ordered or found.verbatim:
        return "the order of the contributors means something to it"
    return None
