"""The points of a sweep as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from git_theta.cli.text import printable, table
from git_theta.core.messages import plural
from git_theta.merge.sweep.table import Point

_BAR = 40


def point_line(point: Point) -> str:
    """Return a point in a line: ``lambda=0.4: score 0.71``."""
    words = ", ".join(f"{name}={value}" for name, value in point.values)
    scores = ", ".join(f"{name} {value:g}" for name, value in point.scores.items())
    return printable(f"{words}: {scores or point.error}")


def point_table(point: Point) -> dict[str, Any]:
    """Return a point as JSON."""
    merge, evaluation = point.seconds
    return {
        "values": dict(point.values),
        "scores": dict(point.scores),
        "error": point.error or None,
        "hashes": dict(point.hashes),
        "seconds": {"merge": round(merge, 3), "evaluation": round(evaluation, 3)},
    }


def found_lines(points: Sequence[Point], best: Sequence[int]) -> list[str]:
    """Return the table of all points, with a bar of the only score, or the Pareto front of several.

    ``best`` are the places of the points on the front.
    """
    scored = [point for point in points if point.scores]
    names = list(scored[0].scores)
    swept = [name for name, _ in scored[0].values]
    if len(names) == 1:
        return table((*swept, names[0], ""), _bars(points, names[0], best)).splitlines()
    rows = [_cells(points[place]) for place in best]
    head = f"Pareto front, {plural(len(rows), 'point')} of {len(scored)}:"
    return [head, *table((*swept, *names), rows).splitlines()]


def _bars(points: Sequence[Point], name: str, best: Sequence[int]) -> list[list[str]]:
    scores = [point.scores[name] for point in points if point.scores]
    low, span = min(scores), max(scores) - min(scores)
    rows = []
    for place, point in enumerate(points):
        if not point.scores:
            rows.append([*(value for _, value in point.values), "-", point.error])
            continue
        length = round(_BAR * (point.scores[name] - low) / span) if span else 0
        rows.append([*_cells(point), "#" * length + (" best" if place in best else "")])
    return rows


def _cells(point: Point) -> list[str]:
    return [*(value for _, value in point.values), *(f"{x:.6g}" for x in point.scores.values())]
