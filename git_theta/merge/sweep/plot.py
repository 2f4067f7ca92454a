"""The scores of a sweep as a picture: an SVG file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from git_theta.merge.sweep.table import Point

_WIDTH, _HEIGHT, _MARGIN = 640, 400, 64
_TICKS = 5
_STYLE = "font-family:sans-serif;font-size:12px"


def svg(points: Sequence[Point], best: Sequence[int]) -> str:
    """Return a drawing of points, of which those at the places ``best`` stand out.

    With one objective, its scores over the first hyperparameter, or over the number of the point
    where that is not a number; with several, the second over the first.
    """
    shown = [(place, point) for place, point in enumerate(points) if point.scores]
    names, rows = _columns([point for _, point in shown])
    scale = [_scaled([row[axis] for row in rows]) for axis in (0, 1)]
    marks = [
        _mark(x, y, point, place in best)
        for x, y, (place, point) in zip(*_positions(rows, scale), shown, strict=True)
    ]
    lines = [_axis(axis, names[axis], scale[axis]) for axis in (0, 1)]
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    body = "\n".join([*lines, *marks])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} style="{_STYLE}">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def _columns(points: Sequence[Point]) -> tuple[tuple[str, str], list[tuple[float, float]]]:
    """Return the names of both axes, and each point's numbers on them."""
    objectives = list(points[0].scores)
    if len(objectives) > 1:
        first, second = objectives[:2]
        return (first, second), [(p.scores[first], p.scores[second]) for p in points]
    (name, _), *_ = points[0].values
    numbers = [_number(point.values[0][1]) for point in points]
    if any(number is None for number in numbers):
        name, numbers = "point", list(map(float, range(1, len(points) + 1)))
    found = [(x or 0.0, p.scores[objectives[0]]) for x, p in zip(numbers, points, strict=True)]
    return (name, objectives[0]), found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _scaled(numbers: Sequence[float]) -> tuple[float, float]:
    low, high = min(numbers), max(numbers)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _positions(
    rows: Sequence[tuple[float, float]], scale: Sequence[tuple[float, float]]
) -> tuple[list[float], list[float]]:
    return [_at(0, x, scale[0]) for x, _ in rows], [_at(1, y, scale[1]) for _, y in rows]


def _at(axis: int, number: float, scale: tuple[float, float]) -> float:
    """Return the position of a number in pixels; y goes downwards."""
    share = (number - scale[0]) / (scale[1] - scale[0])
    if axis == 0:
        return _MARGIN + share * (_WIDTH - 2 * _MARGIN)
    return _HEIGHT - _MARGIN - share * (_HEIGHT - 2 * _MARGIN)


def _mark(x: float, y: float, point: Point, is_best: bool) -> str:
    words = [f"{name}={value}" for name, value in point.values]
    words += [f"{name} {value:g}" for name, value in point.scores.items()]
    color, radius = ("#c0392b", 6) if is_best else ("#2c6fbb", 4)
    title = f"<title>{escape(', '.join(words))}</title>"
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{color}">{title}</circle>'


def _axis(axis: int, name: str, scale: tuple[float, float]) -> str:
    low, high = scale
    left, bottom = _MARGIN - 12, _HEIGHT - _MARGIN + 12
    parts = []
    for tick in range(_TICKS):
        number = low + (high - low) * tick / (_TICKS - 1)
        place = _at(axis, number, scale)
        x, y = (place, bottom + 14) if axis == 0 else (left - 4, place + 4)
        anchor = "middle" if axis == 0 else "end"
        parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{number:.4g}</text>')
    if axis == 0:
        line = f'<path d="M{left} {bottom}H{_WIDTH - _MARGIN}" stroke="#888"/>'
        label = f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 14}" text-anchor="middle">{escape(name)}'
    else:
        line = f'<path d="M{left} {bottom}V{_MARGIN}" stroke="#888"/>'
        label = f'<text x="{left - 4}" y="{_MARGIN - 24}" text-anchor="middle">{escape(name)}'
    return "\n".join([line, *parts, f"{label}</text>"])
