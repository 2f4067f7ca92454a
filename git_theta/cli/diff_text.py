"""The changes of checkpoints as lines and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from git_theta.cli.text import printable, shortened, table
from git_theta.commands.diff import CheckpointDiff, Kind, Row, Sums
from git_theta.core.messages import plural

HEADER = (
    *("CHANGE", "TENSOR", "DTYPE", "SHAPE"),
    *("RELATIVE", "COSINE", "MAX", "CHANGED", "RANK", "NOTE"),
)
RIGHT = (4, 5, 6, 7, 8)
_KINDS: tuple[Kind, ...] = ("changed", "cast", "reshaped", "renamed", "added", "removed")


def lines(diff: CheckpointDiff) -> list[str]:
    """Return a line that sums up, then one for each row."""
    path = diff.path if diff.path == diff.before else f"{diff.before} -> {diff.path}"
    found = [printable(f"{diff.state}: {path}: {_counts(diff)}")]
    if diff.recipe:
        found.append(shortened(printable(f"  merged by {diff.recipe}")))
    if diff.rows and diff.state not in ("added", "deleted"):
        found += [f"  {line}" for line in _table(diff.rows)]
    return found


def _counts(diff: CheckpointDiff) -> str:
    total = plural(diff.tensors, "tensor")
    if diff.state in ("added", "deleted"):
        return total
    counts = [(diff.counts[kind], kind) for kind in _KINDS if kind in diff.counts]
    if not counts:
        others = ": only other bytes of the file did" if diff.state == "modified" else ""
        return f"no tensor changed, of {total}{others}"
    (number, kind), *further = counts
    first = f"{number:,} of {total} {kind}"
    return ", ".join([first, *(f"{number:,} {kind}" for number, kind in further)])


def _table(rows: Sequence[Row]) -> list[str]:
    found = [cells(row) for row in rows]
    used = [at for at in range(len(HEADER)) if any(row[at] for row in found)]
    kept = [[row[at] for at in used] for row in found]
    right = [place for place, at in enumerate(used) if at in RIGHT]
    return table([HEADER[at] for at in used], kept, right).splitlines()


def cells(row: Row) -> tuple[str, ...]:
    """Return what stands below each word of ``HEADER``."""
    sums = row.sums or Sums(is_measured=False)
    return (
        row.update if row.kind == "changed" and row.update else row.kind,
        _name(row),
        " -> ".join(row.dtypes),
        _shape(row),
        _number(sums.relative),
        "" if sums.cosine is None else f"{sums.cosine:.6f}",
        _number(sums.largest if sums.is_measured else None),
        "" if sums.share is None else f"{100 * sums.share:.3g}%",
        "" if row.rank is None else f"{row.rank.value}{'+' if row.rank.is_least else ''}",
        _note(sums),
    )


def _name(row: Row) -> str:
    name = f"{row.before} -> {row.name}" if row.kind == "renamed" else row.name
    return name if row.tensors == 1 else f"{name} ({row.tensors:,})"


def _shape(row: Row) -> str:
    if row.shapes is None:
        return "various"
    return " -> ".join("x".join(map(str, shape)) or "scalar" for shape in row.shapes)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _note(sums: Sums) -> str:
    found = {"NaN": sums.nans, "Inf": sums.infinities}
    return ", ".join(
        f"{name}: {old:,} -> {new:,}" for name, (old, new) in found.items() if old or new
    )


def document(diff: CheckpointDiff) -> dict[str, Any]:
    """Return the same for a script; numbers that are not defined are null."""
    return {
        "path": diff.path,
        "before": diff.before,
        "state": diff.state,
        "tensors": diff.tensors,
        "recipe": diff.recipe,
        **{kind: diff.counts.get(kind, 0) for kind in _KINDS},
        "changes": [_fields(row) for row in diff.rows],
    }


def _fields(row: Row) -> dict[str, Any]:
    sums = row.sums or Sums(is_measured=False)
    return {
        "name": row.name,
        "before": row.before,
        "tensors": row.tensors,
        "kind": row.kind,
        "update": row.update,
        "dtypes": row.dtypes,
        "shapes": row.shapes,
        "size": row.size,
        "relative": sums.relative,
        "cosine": sums.cosine,
        "max": sums.largest if sums.is_measured else None,
        "share": sums.share,
        "nans": sums.nans,
        "infinities": sums.infinities,
        "rank": None if row.rank is None else row.rank.value,
        "rank_is_least": None if row.rank is None else row.rank.is_least,
    }
