"""How charts look: colours, fonts and axes.

Colours are CSS variables in a page, which is light or dark, and those of paper in a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from git_theta.cli.report_page.cells import STEPS

Chart = dict[str, Any]

NARROW, WIDE = 340, 900
"""Widths: of a phone, and of a page."""

_FONT = "system-ui, sans-serif"


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one look; ``steps`` are of the heat map, ``lines`` of several series."""

    text: str
    muted: str
    grid: str
    surface: str
    accent: str
    warn: str
    steps: tuple[str, ...]
    lines: tuple[str, ...]


LIGHT = Palette(
    text="#1b2430",
    muted="#5c6a7a",
    grid="#dfe5ec",
    surface="#ffffff",
    accent="#2563eb",
    warn="#c2410c",
    steps=(
        *("#e8f0fb", "#cbdff5", "#a5c8ec", "#78abdf"),
        *("#4c8bcd", "#2c6ab3", "#174b8f", "#0b2f63"),
    ),
    lines=("#2563eb", "#c2410c", "#0f8a6a", "#8b5cf6"),
)
DARK = Palette(
    text="#e6ebf2",
    muted="#97a5b6",
    grid="#2b3644",
    surface="#151c25",
    accent="#7cacf8",
    warn="#fb923c",
    steps=(
        *("#1b2a3c", "#1f3d5e", "#235380", "#2b6ba5"),
        *("#4487c7", "#6ca6e0", "#9cc6f1", "#d3e7fc"),
    ),
    lines=("#7cacf8", "#fb923c", "#4ec9a5", "#b79dfb"),
)


def variables(palette: Palette) -> dict[str, str]:
    """Return the colours of a palette by the names of the variables that ``PAGE`` has for them."""
    return {
        **{name: getattr(palette, name) for name in _SINGLE},
        **{f"step-{at}": color for at, color in enumerate(palette.steps)},
        **{f"line-{at}": color for at, color in enumerate(palette.lines)},
    }


_SINGLE = ("text", "muted", "grid", "surface", "accent", "warn")
PAGE = Palette(
    text="var(--text)",
    muted="var(--muted)",
    grid="var(--grid)",
    surface="var(--surface)",
    accent="var(--accent)",
    warn="var(--warn)",
    steps=tuple(f"var(--step-{at})" for at in range(STEPS)),
    lines=tuple(f"var(--line-{at})" for at in range(len(LIGHT.lines))),
)


def frame(width: int, palette: Palette) -> Chart:
    """Return what all charts have: a width, margins included, and the look of axes and legends."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": width,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "background": None if palette is PAGE else palette.surface,
        "padding": 0 if palette is PAGE else 12,
        "config": {
            "font": _FONT,
            "view": {"stroke": None},
            "axis": {
                "labelColor": palette.muted,
                "titleColor": palette.muted,
                "titleFontWeight": "normal",
                "gridColor": palette.grid,
                "domainColor": palette.grid,
                "tickColor": palette.grid,
                "labelFontSize": 11,
                "titleFontSize": 11,
            },
            "legend": {
                "labelColor": palette.muted,
                "titleColor": palette.muted,
                "titleFontWeight": "normal",
                "labelFontSize": 11,
                "titleFontSize": 11,
            },
        },
    }


def axis(title: str | None, **more: Any) -> dict[str, Any]:
    """Return an axis without lines; ``more`` are its further properties."""
    fixed = {"ticks": False, "domain": False, "labelPadding": 5, "labelSeparation": 10}
    return {"title": title, **fixed, **more}
