"""The lineage as a graph, as Vega-Lite."""

from __future__ import annotations

from collections.abc import Sequence

from git_theta.cli.report_page.look import Chart, Palette, frame
from git_theta.cli.text import human, printable
from git_theta.commands.report import Node

_ROW = 26
_LANE = 14


def graph(nodes: Sequence[Node], width: int, palette: Palette) -> Chart:
    """Return commits from the latest down: a dot as large as what each stored, and its subject."""
    lanes = 1 + max(node.lane for node in nodes)
    left = _LANE * lanes + 6
    most = max(node.stored for node in nodes) or 1
    edges = [
        {"edge": f"{node.row}-{parent}", "at": at, "lane": lane, "row": row}
        for node in nodes
        for parent in node.parents
        for at, (lane, row) in enumerate(_edge(node, nodes[parent]))
    ]
    dots = [
        {
            "lane": node.lane,
            "row": node.row,
            "area": 20 + 160 * node.stored / most,
            "title": _title(node),
            "stored": human(node.stored),
            "text": f"{printable(node.author)}, {node.date[:10]}: {printable(node.subject)}",
        }
        for node in nodes
    ]
    x = {
        "field": "lane",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [0, 1], "range": [_LANE / 2, _LANE * 1.5]},
    }
    y = {
        "field": "row",
        "type": "quantitative",
        "axis": None,
        "scale": {
            "domain": [0, len(nodes) - 1 or 1],
            "range": [_ROW / 2, _ROW * (len(nodes) or 1) - _ROW / 2],
        },
    }
    label = {"type": "text", "baseline": "middle", "color": palette.text, "fontSize": 12}
    return {
        **frame(width, palette),
        "height": _ROW * len(nodes),
        "layer": [
            {
                "data": {"values": edges},
                "mark": {"type": "line", "color": palette.muted, "strokeWidth": 1.5},
                "encoding": {"x": x, "y": y, "detail": {"field": "edge"}, "order": {"field": "at"}},
            },
            {
                "data": {"values": dots},
                "mark": {"type": "circle", "color": palette.accent, "opacity": 1},
                "encoding": {
                    "x": x,
                    "y": y,
                    "size": {"field": "area", "type": "quantitative", "scale": None},
                    "description": {"field": "text"},
                },
            },
            {
                "data": {"values": dots},
                "mark": {**label, "align": "left", "limit": width - left - 92},
                "encoding": {"x": {"value": left}, "y": y, "text": {"field": "title"}},
            },
            {
                "data": {"values": dots},
                "mark": {**label, "align": "right", "color": palette.muted},
                "encoding": {"x": {"value": width - 12}, "y": y, "text": {"field": "stored"}},
            },
        ],
    }


def _edge(child: Node, parent: Node) -> list[tuple[int, int]]:
    """Return the corners of the line from a commit down to a parent."""
    start, end = (child.lane, child.row), (parent.lane, parent.row)
    if child.lane == parent.lane:
        return [start, end]
    if parent.lane > child.lane or len(child.parents) > 1:
        return [start, (parent.lane, child.row + 1), end]
    return [start, (child.lane, parent.row - 1), end]


def _title(node: Node) -> str:
    names = "".join(f"[{printable(name)}] " for name in node.names)
    return f"{names}{node.commit[:8]} {printable(node.subject)}"
