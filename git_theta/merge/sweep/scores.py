"""Scores: what an evaluation prints in its last line, and which points are best by them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence, Set

from git_theta.errors import MergeError

Scores = Mapping[str, float]

_SEPARATORS = re.compile(r"[\s,;]+")
_PAIR = re.compile(r"(?P<name>[^\s=:]+)[=:](?P<value>.+)")
_LONGEST = 60


def parse_scores(output: str) -> dict[str, float]:
    """Return the objectives in the last line of an evaluation's output, by name.

    It is a number, several of them, NAME=NUMBER several times, or a JSON object of numbers.
    Raises ``MergeError`` for any other line.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    try:
        found = _object(last) if last.startswith("{") else _words(last)
    except (ValueError, TypeError, AttributeError, RecursionError):
        found = {}
    if not found or not all(map(math.isfinite, found.values())):
        shown = last if len(last) <= _LONGEST else f"{last[:_LONGEST]}..."
        raise MergeError(
            f"the last line of the evaluation is not a score: {shown!r}",
            hint="let the command print a number, or several, as its last line",
        )
    return found


def _object(line: str) -> dict[str, float]:
    return {str(name): _number(value) for name, value in json.loads(line).items()}


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError
    return float(value)


def _words(line: str) -> dict[str, float]:
    words = [word for word in _SEPARATORS.split(line) if word]
    pairs = [_PAIR.fullmatch(word) for word in words]
    if all(pairs):
        return {pair["name"]: float(pair["value"]) for pair in pairs if pair}
    numbers = [float(word) for word in words]
    names = ["score"] if len(numbers) == 1 else [f"score{n}" for n in range(1, len(numbers) + 1)]
    return dict(zip(names, numbers, strict=True))


def front(points: Sequence[Scores], minimized: Set[str]) -> list[int]:
    """Return the places of the points that no other is at least as good as in all objectives.

    Of points that are equal in all, each is one. Objectives in ``minimized`` are better lower.
    """
    gains = [_gains(scores, minimized) for scores in points]
    return [
        place
        for place, own in enumerate(gains)
        if not any(_is_better(other, own) for other in gains)
    ]


def _gains(scores: Scores, minimized: Set[str]) -> tuple[float, ...]:
    return tuple(-value if name in minimized else value for name, value in scores.items())


def _is_better(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def best(points: Sequence[Scores], minimized: Set[str], objective: str) -> int:
    """Return the place of the best point by one objective, the first of equal ones."""
    sign = -1 if objective in minimized else 1
    return max(range(len(points)), key=lambda place: (sign * points[place][objective], -place))
