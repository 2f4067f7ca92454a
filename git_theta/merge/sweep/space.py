"""Points of a sweep: values of hyperparameters, on a grid or drawn at random."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import product

from git_theta.errors import UsageError

Values = tuple[tuple[str, str], ...]
"""Hyperparameters of a point with their values, as ``-p`` takes them."""

LARGEST = 10_000
"""Most points of a sweep."""

_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Axis:
    """Values of one hyperparameter; numbers ``low`` to ``high`` where there is no step."""

    name: str
    values: tuple[str, ...]
    low: float = 0.0
    high: float = 0.0

    def draw(self, numbers: random.Random) -> str:
        """Return a value at random; of a range without a step one with four digits."""
        if self.values:
            return numbers.choice(self.values)
        return f"{numbers.uniform(self.low, self.high):.{_DIGITS}g}"


@dataclass(frozen=True, slots=True)
class Space:
    """What a sweep goes over: ``axes``, and ``fixed`` items KEY=VALUE that all points share."""

    axes: tuple[Axis, ...]
    fixed: tuple[str, ...]

    def items(self, values: Values) -> list[str]:
        """Return all hyperparameters of a point as items KEY=VALUE."""
        return [*self.fixed, *(f"{name}={value}" for name, value in values)]


def parse_space(items: Sequence[str]) -> Space:
    """Return what ``-p`` items ask for: KEY=A:B:STEP is a range, a key given again a list.

    Raises ``UsageError`` for a range that is none, and where nothing is swept.
    """
    given: dict[str, list[str]] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise UsageError(f"-p {item} is not KEY=VALUE", hint="e.g. -p lambda=0.1:1.5:0.1")
        given.setdefault(key, []).append(value)
    axes = [_axis(key, values) for key, values in given.items() if _is_swept(values)]
    if not axes:
        raise UsageError(
            "nothing to sweep: no hyperparameter has several values",
            hint="e.g. -p lambda=0.1:1.5:0.1, or -p density=0.2 -p density=0.5",
        )
    fixed = [f"{key}={values[0]}" for key, values in given.items() if not _is_swept(values)]
    return Space(tuple(axes), tuple(fixed))


def _is_swept(values: Sequence[str]) -> bool:
    return len(values) > 1 or ":" in values[0]


def _axis(name: str, values: Sequence[str]) -> Axis:
    if len(values) > 1 and any(":" in value for value in values):
        raise UsageError(f"-p {name}: give either one range or several values")
    if len(values) > 1:
        return Axis(name, tuple(dict.fromkeys(values)))
    try:
        low, high, *step = map(Decimal, values[0].split(":"))
        if len(step) > 1 or not all(number.is_finite() for number in (low, high, *step)):
            raise ValueError
    except (InvalidOperation, ValueError) as error:
        raise _no_range(name, values[0]) from error
    if low > high or any(number <= 0 for number in step):
        raise _no_range(name, values[0])
    if not step:
        return Axis(name, (), float(low), float(high))
    if (count := int((high - low) / step[0]) + 1) > LARGEST:
        raise UsageError(f"-p {name}={values[0]} has {count:,} values; {LARGEST:,} are the limit")
    return Axis(name, tuple(f"{low + place * step[0]:f}" for place in range(count)))


def _no_range(name: str, text: str) -> UsageError:
    return UsageError(
        f"-p {name}={text} is not a range", hint=f"START:END:STEP, e.g. {name}=0.1:1.5:0.1"
    )


def grid(space: Space, innermost: str | None) -> list[Values]:
    """Return every combination of values; hyperparameter ``innermost`` changes the fastest.

    Raises ``UsageError`` for a range without a step, and for too many points.
    """
    for axis in space.axes:
        if not axis.values:
            raise UsageError(
                f"-p {axis.name}={axis.low:g}:{axis.high:g} has no step",
                hint=f"{axis.name}={axis.low:g}:{axis.high:g}:STEP, or --random N",
            )
    axes = sorted(space.axes, key=lambda axis: axis.name == innermost)
    total = 1
    for axis in axes:
        total *= len(axis.values)
    if total > LARGEST:
        raise UsageError(f"the grid has {total:,} points; {LARGEST:,} are the limit")
    return [_in_order(space, point) for point in product(*(_named(axis) for axis in axes))]


def drawn(space: Space, count: int, seed: int, innermost: str | None) -> list[Values]:
    """Return up to ``count`` different points at random, the same for the same ``seed``.

    Those that differ in ``innermost`` alone follow each other.
    """
    numbers = random.Random(seed)  # noqa: S311 - reproducible, not secret
    found: dict[Values, None] = {}
    for _ in range(10 * count):  # a small grid has fewer points than are asked for
        if len(found) == count:
            break
        found[tuple((axis.name, axis.draw(numbers)) for axis in space.axes)] = None
    return sorted(found, key=lambda values: [pair for pair in values if pair[0] != innermost])


def _named(axis: Axis) -> list[tuple[str, str]]:
    return [(axis.name, value) for value in axis.values]


def _in_order(space: Space, point: Sequence[tuple[str, str]]) -> Values:
    values: Mapping[str, str] = dict(point)
    return tuple((axis.name, values[axis.name]) for axis in space.axes)
