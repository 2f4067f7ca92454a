"""Parameters of a recipe for one tensor: by filters of its name, and by its layer.

Filters are parts of names; the first that a name has counts. A list of numbers is a gradient over
the layers, interpolated linearly; what is in no layer has the first of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from git_theta.errors import MergeError
from git_theta.merge.rules import gradients

REQUIRED = object()
"""Stands for the default of a parameter that must be given."""


@dataclass(frozen=True, slots=True)
class At:
    """The place of a tensor: its name, and its depth, from 0 to 1."""

    name: str
    depth: float = 0.0


def value_at(
    key: str, scopes: Sequence[Mapping[str, Any]], at: At, default: Any, kind: type
) -> Any:
    """Return the value of a parameter of type ``kind``: of the first scope that has one there.

    Raises ``MergeError`` for one that is missing, or of another type.
    """
    for scope in scopes:
        value = _evaluate(scope[key], at, kind) if key in scope else None
        if value is not None:
            return value
    if default is REQUIRED:
        raise MergeError(f"{key} is missing")
    return default


def _evaluate(setting: Any, at: At, kind: type) -> Any:
    if isinstance(setting, Mapping):
        setting = [setting]
    if not isinstance(setting, list):
        return _typed(setting, kind)
    if any(isinstance(each, Mapping) for each in setting):
        chosen = (each for each in setting if isinstance(each, Mapping) and _is_for(each, at))
        return next((_evaluate(each.get("value"), at, kind) for each in chosen), None)
    return _interpolated([_typed(each, kind) for each in setting], at.depth, kind)


def _is_for(conditional: Mapping[str, Any], at: At) -> bool:
    wanted = conditional.get("filter")
    return wanted in (None, "*") or (isinstance(wanted, str) and wanted in at.name)


def _interpolated(values: Sequence[Any], depth: float, kind: type) -> Any:
    if not values:
        return None
    if kind is float:
        return gradients.at(gradients.gradient(values), depth)
    return values[int(depth * (len(values) - 1))]


def _typed(value: Any, kind: type) -> Any:
    """Return a number or truth value. YAML 1.1 reads ``1e-3`` as a string."""
    try:
        if kind is bool and isinstance(value, bool):
            return value
        if kind is not bool and isinstance(value, (int, float, str)) and value is not True:
            return kind(value)
    except (ValueError, OverflowError):
        pass
    raise MergeError(f"{value!r} is not a {'boolean' if kind is bool else 'number'}")
