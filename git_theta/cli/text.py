"""Values as text: sizes, tables, JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from git_theta.cli.terminal import visible
from git_theta.core.messages import plural

if TYPE_CHECKING:
    from git_theta.commands.comparison import Difference

_WIDEST = 120
_LONGEST = 500
_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


def human(count: float) -> str:
    """Return bytes in the decimal units that hosts and disks are sold in: ``1.2 MB``."""
    for unit in _UNITS:
        if abs(count) < 1000 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def uploaded_line(count: int, size: int, remote: str) -> str:
    """Return the line that says what was sent."""
    return f"Uploaded {plural(count, 'object')} ({human(size)}) to {remote}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return aligned columns of printable cells, those numbered in ``right`` to the right."""
    lines = [[printable(cell) for cell in line] for line in (header, *rows)]
    # A name of 64 KiB must not make each of 250,000 lines as long.
    widths = [
        max(len(line[column]) for line in lines if len(line[column]) <= _WIDEST or line is lines[0])
        for column in range(len(header))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def tensor_changes(state: str, difference: Difference) -> str:
    """``101 of 103 tensors changed, 2 added, 12.3 MB stored``."""
    total, stored = plural(difference.tensors, "tensor"), f"{human(difference.stored)} stored"
    if state in ("added", "deleted"):
        return f"{total}, {stored}" if state == "added" else total
    counts = [f"{difference.changed:,} of {total} changed"] if difference.changed else []
    counts += [f"{difference.added:,} added"] if difference.added else []
    counts += [f"{difference.removed:,} removed"] if difference.removed else []
    if not counts:
        other = ", only other bytes of the file" if state == "modified" else ""
        counts = [f"no tensor changed{other}"]
    return ", ".join([*counts, stored])


def flat(row: Any) -> dict[str, Any]:
    """Return a row as JSON takes it, with the fields of its ``difference`` among its own."""
    fields = asdict(row)
    difference = fields.pop("difference")
    return {**fields, **difference}


def print_json(value: Any) -> None:
    """Machine-readable output, stable in order."""
    # Imported here: a filter, which prints text alone, starts without click.
    import json

    import click

    click.echo(json.dumps(value, indent=2))


def shortened(line: str) -> str:
    """Return a line of at most 500 characters; a stranger's recipe may have 256 MiB."""
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 4]} ..."


def printable(name: str) -> str:
    """Return a name from a stranger as one line of visible characters."""
    return visible(name, kept=frozenset())
