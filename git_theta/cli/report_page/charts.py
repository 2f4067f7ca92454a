"""What is drawn of tensors, as Vega-Lite: data and encodings, no code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from git_theta.cli.report_page.cells import OUTSIDE, Cell, LayerAgreement, scale_of
from git_theta.cli.report_page.look import NARROW, Chart, Palette, axis, frame
from git_theta.cli.text import printable, shortened
from git_theta.commands.report import Spectrum
from git_theta.core.layout import natural_order
from git_theta.core.messages import plural

APART, TOGETHER = -0.1, 0.2
"""Cosines beyond which two changes pull apart or together.

Those of unrelated trainings are within 0.1 of 0 (Ilharco and others 2023, section 5).
"""

# Share of signs that is no different from chance: a half, plus or minus this.
_CHANCE = 0.02

_BINS = 16


def heat_map(cells: Sequence[Cell], width: int, palette: Palette) -> Chart:
    """Return the relative change by layer (across) and module (down)."""
    scale = scale_of([cell.relative for cell in cells])
    values = [
        {
            "layer": cell.layer,
            "module": cell.module,
            "step": scale.labels[scale.step(cell.relative)],
            "text": f"{cell.name}: {_relative(cell.relative)}{_count(cell.tensors)}",
        }
        for cell in cells
    ]
    steps = legend(cells, palette)
    # A browser's font may be a quarter wider than the one that the text was measured in.
    label = 100 if width == NARROW else 230
    return {
        **frame(width, palette),
        "height": {"step": 15 if width == NARROW else 18},
        "data": {"values": values},
        "mark": {"type": "rect", "stroke": palette.surface, "strokeWidth": 1},
        "encoding": {
            "x": {
                "field": "layer",
                "type": "ordinal",
                "sort": sorted({cell.layer for cell in cells}, key=_layer_order),
                "axis": axis("layer", labelAngle=0, labelOverlap="parity"),
            },
            "y": {
                "field": "module",
                "type": "ordinal",
                "sort": list(dict.fromkeys(cell.module for cell in cells)),
                "axis": axis(None, labelLimit=label, minExtent=label + 10),
            },
            "color": {
                "field": "step",
                "type": "ordinal",
                "scale": {
                    "domain": [label for _, label in steps],
                    "range": [color for color, _ in steps],
                },
                "legend": None,
            },
            "description": {"field": "text"},
        },
    }


def with_legend(cells: Sequence[Cell], width: int, palette: Palette) -> Chart:
    """Return a heat map that explains its colours itself, as a picture must."""
    chart = heat_map(cells, width, palette)
    chart["encoding"]["color"]["legend"] = {
        "title": "relative L2 change, from",
        "orient": "top",
        "direction": "horizontal",
        "symbolType": "square",
        "symbolStrokeWidth": 0,
        "symbolSize": 140,
    }
    return chart


def legend(cells: Sequence[Cell], palette: Palette) -> list[tuple[str, str]]:
    """Return the colours of a heat map, and from which change on each is."""
    labels = scale_of([cell.relative for cell in cells]).labels
    return list(zip(palette.steps[-len(labels) :], labels, strict=True))


def _layer_order(layer: str) -> tuple[bool, object]:
    return layer != OUTSIDE, natural_order(layer)


def _relative(value: float) -> str:
    return "was zero" if value == math.inf else f"{value:.3g}"


def _count(tensors: int) -> str:
    return "" if tensors == 1 else f" ({plural(tensors, 'tensor')})"


def histogram(values: Sequence[float], palette: Palette) -> Chart:
    """Return how many tensors changed by how much, relative to themselves."""
    finite = [value for value in values if 0 < value < math.inf]
    scale = scale_of(finite, _BINS)
    ratio = scale.starts[1] / scale.starts[0] if len(scale.starts) > 1 else 1.1
    counts = [0] * len(scale.starts)
    for value in finite:
        counts[scale.step(value)] += 1
    rows = [
        {
            "from": start,
            "to": start * ratio,
            "tensors": count,
            "text": f"{plural(count, 'tensor')}: {start:.2g} to {start * ratio:.2g}",
        }
        for start, count in zip(scale.starts, counts, strict=True)
    ]
    return {
        **frame(NARROW, palette),
        "height": 190,
        "data": {"values": rows},
        "mark": {"type": "rect", "color": palette.accent, "stroke": palette.surface},
        "encoding": {
            "x": {
                "field": "from",
                "type": "quantitative",
                "scale": {
                    "type": "log",
                    "nice": False,
                    "domain": [rows[0]["from"], rows[-1]["to"]],
                },
                "axis": axis(
                    "relative L2 change",
                    grid=False,
                    labelOverlap="greedy",
                    tickCount=3,
                    format="~g",
                ),
            },
            "x2": {"field": "to"},
            "y": {
                "field": "tensors",
                "type": "quantitative",
                "axis": axis("tensors", tickMinStep=1, tickCount=4, format="~s"),
            },
            "y2": {"datum": 0},
            "description": {"field": "text"},
        },
    }


def singular_values(spectra: Sequence[Spectrum], palette: Palette) -> Chart:
    """Return the singular values of several changes, each relative to its largest one."""
    names = [shortened(printable(each.name)) for each in spectra]
    floor = 1e-6
    rows = [
        {
            "number": number,
            "value": max(floor, value / each.values[0]),
            "name": name,
            "text": f"{name}: value {number} is {value:.3g}",
        }
        for each, name in zip(spectra, names, strict=True)
        for number, value in enumerate(each.values, 1)
    ]
    return {
        **frame(NARROW, palette),
        "height": 190,
        "data": {"values": rows},
        "mark": {"type": "line", "point": {"size": 18, "filled": True}, "strokeWidth": 1.5},
        "encoding": {
            "x": {
                "field": "number",
                "type": "quantitative",
                "axis": axis("number of the singular value", grid=False, tickMinStep=1),
            },
            "y": {
                "field": "value",
                "type": "quantitative",
                "scale": {"type": "log", "nice": False},
                "axis": axis("of the largest", tickCount=4, format="~g"),
            },
            "color": {
                "field": "name",
                "type": "nominal",
                "scale": {"domain": names, "range": list(palette.lines[: len(names)])},
                "legend": {
                    "title": None,
                    "orient": "bottom",
                    "columns": 1,
                    "labelLimit": 300,
                    "symbolType": "stroke",
                },
            },
            "description": {"field": "text"},
        },
    }


def cosines(layers: Sequence[LayerAgreement], palette: Palette) -> Chart:
    """Return the cosine of two branches' changes in each layer."""
    found = [(each.layer, each.cosine) for each in layers if each.cosine is not None]
    rows = [
        {"layer": layer, "value": value, "text": f"layer {layer}: {value:.3f}", "from": 0}
        | {"look": _look(value <= APART, value >= TOGETHER)}
        for layer, value in found
    ]
    lowest = min((value for _, value in found), default=0.0)
    return _per_layer(rows, "cosine", [min(-0.25, lowest), 1], palette, "~g")


def disagreements(layers: Sequence[LayerAgreement], palette: Palette) -> Chart:
    """Return the share of elements that two branches pushed apart, in each layer."""
    found = [(each.layer, each.disagreement) for each in layers if each.disagreement is not None]
    rows = [
        {"layer": layer, "value": value, "text": f"layer {layer}: {value:.1%}", "from": 0.5}
        | {"look": _look(value >= 0.5 + _CHANCE, value <= 0.5 - _CHANCE)}
        for layer, value in found
    ]
    return _per_layer(rows, "opposite signs", [0, 1], palette, "%")


def _look(is_apart: bool, is_together: bool) -> str:
    return "apart" if is_apart else "together" if is_together else "neither"


def _per_layer(
    rows: list[dict[str, Any]], title: str, domain: list[float], palette: Palette, form: str
) -> Chart:
    return {
        **frame(NARROW, palette),
        "height": 150,
        "data": {"values": rows},
        "mark": {"type": "bar"},
        "encoding": {
            "x": {
                "field": "layer",
                "type": "ordinal",
                "sort": None,
                "axis": axis("layer", labelAngle=0, labelOverlap="parity"),
            },
            "y": {
                "field": "value",
                "type": "quantitative",
                "scale": {"domain": domain},
                "axis": axis(title, tickCount=5, format=form),
            },
            "y2": {"field": "from"},
            "color": {
                "field": "look",
                "type": "nominal",
                "scale": {
                    "domain": ["apart", "neither", "together"],
                    "range": [palette.warn, palette.muted, palette.accent],
                },
                "legend": None,
            },
            "description": {"field": "text"},
        },
    }
