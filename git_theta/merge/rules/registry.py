"""Merge strategies by name: loading one, and listing all without loading them.

Each imports torch, which takes 3 s.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from git_theta.core import registry
from git_theta.errors import MergeError
from git_theta.merge.rules.strategy import Strategy
from git_theta.merge.rules.values import unknown


@cache
def strategy_named(name: str) -> Strategy:
    """Return the strategy called ``name``; raise ``MergeError``, which lists the known ones."""
    known = registry.names("strategies")
    if name not in known:
        raise unknown("there is no strategy called", name, known)
    found = registry.load("strategies", name)
    if not isinstance(found, Strategy):
        raise MergeError(f"the plug-in {name!r} is not a strategy: decorate it with @strategy()")
    return replace(found, name=name)


@dataclass(frozen=True, slots=True)
class StrategySummary:
    """A strategy's name, the first line of its documentation, and whether another is the same."""

    name: str
    summary: str
    same_as: str | None = None


def list_strategies() -> list[StrategySummary]:
    """Return a summary of every strategy, built in or installed, in the order of the registry."""
    return list(_rows())


def _rows() -> Iterator[StrategySummary]:
    first: dict[str, str] = {}
    for name in registry.names("strategies"):
        place = registry.place("strategies", name)
        same_as = first.setdefault(place, name)
        yield StrategySummary(name, _summary_of(name, place), same_as if same_as != name else None)


def _summary_of(name: str, place: str) -> str:
    try:
        return _summary(place) or strategy_named(name).summary
    except Exception as error:  # a package of somebody else's: the others are still listed
        return f"it cannot be loaded: {type(error).__name__}: {error}"


def _summary(place: str) -> str | None:
    """Return the first line of the docstring of ``module:function``, read from the source."""
    module, _, function = place.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return (ast.get_docstring(node) or "").partition("\n")[0] or None
    return None


def check_name(name: str) -> None:
    """Raise ``MergeError`` if no strategy has this name; load none."""
    known = registry.names("strategies")
    if name not in known:
        raise unknown("there is no strategy called", name, known)
