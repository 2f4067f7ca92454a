"""Gradients: a hyperparameter that changes over the depth of the model, as in mergekit.

``t=[0,0.5,1]`` is 0 in the first layer, 1 in the last, and on a line between. In the values of a
strategy, which are JSON, such a number is ``{"gradient": [0, 0.5, 1]}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_KEY = "gradient"


def numbers_of(value: Any) -> Sequence[Any] | None:
    """Return the numbers of a gradient as somebody wrote it; ``None`` for anything else.

    A text in brackets or with commas, a list, or a mapping as in a recipe.
    """
    if isinstance(value, str) and ("," in value or value.startswith("[")):
        return value.removeprefix("[").removesuffix("]").split(",")
    if is_gradient(value):
        value = value[_KEY]
    return value if isinstance(value, list) else None


def gradient(numbers: Sequence[float]) -> dict[str, list[float]]:
    """Return a gradient as values have it. Raise ``ValueError`` for one without numbers."""
    if not numbers:
        raise ValueError
    return {_KEY: list(numbers)}


def is_gradient(value: object) -> bool:
    """Return whether a value is a gradient."""
    return isinstance(value, Mapping) and set(value) == {_KEY} and isinstance(value[_KEY], list)


def places(value: Any) -> set[float]:
    """Return the depths at which gradients among values have a number; none without any."""
    if is_gradient(value):
        number = len(value[_KEY])
        return {place / max(1, number - 1) for place in range(number)}
    return {place for part in _parts(value) for place in places(part)}


def at(value: Any, depth: float) -> Any:
    """Return values with all gradients at a depth, from 0 in the first layer to 1 in the last."""
    if is_gradient(value):
        return _interpolated(value[_KEY], depth)
    if isinstance(value, Mapping):
        return {key: at(part, depth) for key, part in value.items()}
    return [at(part, depth) for part in value] if isinstance(value, list) else value


def _parts(value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else ()


def _interpolated(numbers: Sequence[float], depth: float) -> float:
    """Return the number on the line between two neighbours: mergekit's formula, to the bit."""
    place = depth * (len(numbers) - 1)
    before = int(place)
    after = min(len(numbers) - 1, before + 1)
    share = place - before
    return (1 - share) * numbers[before] + share * numbers[after]
