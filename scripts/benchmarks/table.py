"""Aligned tables and short figures for the terminal; they are valid Markdown too."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns: the first to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(line, widths) for line in [head, rule, *rows])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = (
        cell.ljust(width) if column == 0 else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join([first, *others]) + " |"


def size(count: float) -> str:
    """Bytes in decimal units, as disks and hosts count them."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def seconds(value: float) -> str:
    """Seconds with as many digits as a single run is worth."""
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def ratio(ours: float, theirs: float) -> str:
    """``ours`` as a multiple of ``theirs``."""
    return f"{ours / theirs:.2f}x" if theirs else "-"


def stored_ratio(ours: int, theirs: int) -> str:
    """``ratio`` of stored bytes, where a checkpoint was stored and not just Git's own files."""
    return ratio(ours, theirs) if min(ours, theirs) > 1_000_000 else "-"
