"""The table of a sweep, kept in ``.git/theta/sweeps`` after every point."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from git_theta.core.files import atomic_file
from git_theta.core.hashes import content_hash
from git_theta.merge.sweep.scores import Scores
from git_theta.merge.sweep.space import Values

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Point:
    """Scores of one merge, or the reason why there are none.

    ``hashes`` are the BLAKE3 hashes of the merged files, by path. ``seconds`` are those of merging
    and of evaluating.
    """

    values: Values
    scores: Scores = field(default_factory=dict)
    error: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)


class Table:
    """Points by their values; ``identity`` is what makes scores comparable: commits, command."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        text = json.dumps(identity, sort_keys=True).encode("utf-8", "surrogatepass")
        self.identity = identity
        self.file = folder / f"{content_hash(text)[:12]}.json"
        self._points: dict[Values, Point] = {}

    def load(self) -> None:
        """Read the points of an earlier run; a file that is none of ours counts as none."""
        try:
            found = json.loads(self.file.read_bytes())
            if (found["version"], found["identity"]) == (_VERSION, json_of(self.identity)):
                self._points = {p.values: p for p in map(_point, found["points"])}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self._points = {}

    def scored(self, values: Values) -> Point | None:
        """Return the point with these values, if it has scores."""
        found = self._points.get(values)
        return found if found and found.scores else None

    def add(self, point: Point) -> None:
        """Keep a point, on disk too."""
        self._points[point.values] = point
        self.save()

    def save(self) -> None:
        """Write the file."""
        rows = [_row(point) for point in self._points.values()]
        document = {"version": _VERSION, "identity": self.identity, "points": rows}
        with atomic_file(self.file, sync_content=False, sync_name=False) as file:
            file.write(json.dumps(document, indent=1).encode("utf-8", "surrogatepass"))

    @property
    def objectives(self) -> list[str]:
        """Names of the scores, as the first point has them; none before there is one."""
        scored = (point.scores for point in self._points.values() if point.scores)
        return list(next(scored, {}))

    def points(self, wanted: Sequence[Values]) -> list[Point]:
        """Return those of the ``wanted`` points that were tried, in their order."""
        return [self._points[values] for values in wanted if values in self._points]


def json_of(value: Any) -> Any:
    """Return a value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def _row(point: Point) -> dict[str, Any]:
    row: dict[str, Any] = {"values": dict(point.values), "scores": dict(point.scores)}
    row |= {"error": point.error} if point.error else {}
    merge, evaluation = (round(number, 3) for number in point.seconds)
    return row | {
        "hashes": dict(point.hashes),
        "seconds": {"merge": merge, "evaluation": evaluation},
    }


def _point(row: Mapping[str, Any]) -> Point:
    return Point(
        tuple((str(name), str(value)) for name, value in row["values"].items()),
        {str(name): float(value) for name, value in row["scores"].items()},
        str(row.get("error", "")),
        dict(row["hashes"]),
        (float(row["seconds"]["merge"]), float(row["seconds"]["evaluation"])),
    )


def summary(points: Sequence[Point]) -> dict[str, Any]:
    """Return the table for a recipe: names once, and a row of values and scores for each point."""
    names = [name for name, _ in points[0].values]
    objectives = list(next(point.scores for point in points if point.scores))
    return {
        "swept": names,
        "objectives": objectives,
        "points": [
            [[value for _, value in point.values], [point.scores[name] for name in objectives]]
            for point in points
            if point.scores
        ],
    }
