"""A report as one HTML file that needs nothing else: no script, no network.

Names come from strangers: the template escapes every text, characters that show nothing are made
visible, and the page's policy lets a browser run and load nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from git_theta import __version__
from git_theta.cli import diff_text
from git_theta.cli.report_page import charts, look
from git_theta.cli.report_page.cells import (
    LAYERS,
    MODULES,
    Cell,
    by_layer,
    by_module,
    cells_of,
)
from git_theta.cli.report_page.charts import APART, TOGETHER
from git_theta.cli.report_page.drawing import png, svg
from git_theta.cli.report_page.graph import graph
from git_theta.cli.report_page.look import LIGHT, NARROW, PAGE, WIDE, Chart
from git_theta.cli.text import printable, shortened
from git_theta.commands.diff import Kind
from git_theta.commands.report import Agreement, Fate, Model, Report
from git_theta.core.messages import short_id

if TYPE_CHECKING:
    from jinja2 import Environment

_ROWS = 60
_KINDS: tuple[Kind, ...] = ("changed", "cast", "reshaped", "renamed", "added", "removed")


def html(report: Report) -> bytes:
    """Return the page."""
    drawn = [svg(graph(report.lineage, width, PAGE)) for width in (WIDE, NARROW) if report.lineage]
    text = (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            models=[_model(report, each) for each in report.models],
            lineage=_safe(drawn),
            light=look.variables(LIGHT),
            dark=look.variables(look.DARK),
            modules=MODULES,
            layers=LAYERS,
            version=__version__,
        )
    )
    return text.encode("utf-8", "backslashreplace")


def picture(report: Report) -> bytes | None:
    """Return the heat maps as a PNG; ``None`` where nothing could be measured."""
    maps = [
        {**charts.with_legend(cells, WIDE, LIGHT), "title": _title(model.path)}
        for model in report.models
        if (cells := cells_of(model.changes))
    ]
    if not maps:
        return None
    if len(maps) == 1:
        return png(maps[0])
    shared = {key: maps[0][key] for key in ("$schema", "config", "background", "padding")}
    own = [{key: each[key] for key in each.keys() - shared.keys() - {"autosize"}} for each in maps]
    return png({**shared, "vconcat": own, "resolve": {"scale": {"color": "independent"}}})


def _title(path: str) -> dict[str, Any]:
    return {"text": printable(path), "anchor": "start", "color": LIGHT.text, "fontSize": 14}


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
    )
    found.filters |= {"visible": printable, "short": short_id, "breakable": _breakable}
    return found


def _breakable(name: str) -> Any:
    """Return a name that a line may break in after a dot or slash."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"(?<=[./])(?=.)", "<wbr>", str(escape(shortened(printable(name))))))  # noqa: S704


def _safe(drawn: Sequence[str]) -> list[Any]:
    """Return drawings, in which vl-convert has escaped every text, as they are."""
    from markupsafe import Markup

    return [Markup(each) for each in drawn]  # noqa: S704


@dataclass(frozen=True, slots=True)
class _Merging:
    """What merging would do to a group of tensors that both branches changed."""

    name: str
    cosine: str
    disagreement: str
    verdict: str
    is_opposed: bool


def _model(report: Report, model: Model) -> dict[str, Any]:
    rows = model.rows
    cells = cells_of(model.changes)
    measured = [each.sums.relative or 0.0 for each in model.changes if each.sums]
    header, table = _table(model)
    layers = by_layer(model.agreements)
    return {
        "path": model.path,
        "counts": [(kind, model.counts[kind]) for kind in _KINDS if model.counts[kind]],
        "heat_map": _safe(_maps(cells)),
        "legend": charts.legend(cells, PAGE),
        "is_cut": _is_cut(cells),
        "histogram": _one(charts.histogram(measured, PAGE)) if any(measured) else "",
        "spectra": _one(charts.singular_values(model.spectra, PAGE)) if model.spectra else "",
        "header": header,
        "rows": table[:_ROWS],
        "left_out": max(0, len(rows) - _ROWS),
        "fates": _fates(report, model),
        "merging": [_merging(*row) for row in by_module(model.agreements)[:_ROWS]],
        "cosines": _one(charts.cosines(layers, PAGE)) if layers else "",
        "disagreements": _one(charts.disagreements(layers, PAGE)) if layers else "",
    }


def _one(chart: Chart) -> Any:
    return _safe([svg(chart)])[0]


def _maps(cells: Sequence[Cell]) -> list[str]:
    return [svg(charts.heat_map(cells, width, PAGE)) for width in (WIDE, NARROW) if cells]


def _is_cut(cells: Sequence[Cell]) -> bool:
    modules, layers = ({getattr(cell, name) for cell in cells} for name in ("module", "layer"))
    return len(modules) >= MODULES or len(layers) >= LAYERS


def _table(model: Model) -> tuple[list[tuple[str, bool]], list[list[tuple[str, bool, bool]]]]:
    """Return the columns that have something, each with whether it holds numbers, and the rows."""
    cells = [diff_text.cells(row) for row in model.rows]
    used = [at for at in range(len(diff_text.HEADER)) if any(row[at] for row in cells)]
    names = [(diff_text.HEADER[at], at in diff_text.RIGHT) for at in used]
    name = diff_text.HEADER.index("TENSOR")
    rows = [
        [(printable(row[at]), at in diff_text.RIGHT, at == name) for at in used] for row in cells
    ]
    return names, rows


def _fates(report: Report, model: Model) -> list[tuple[int, str]]:
    first, second = report.names
    words: dict[Fate, str] = {
        "first": f"changed by {first} alone",
        "second": f"changed by {second} alone",
        "alike": "changed alike by both",
        "both": "changed by both, otherwise",
    }
    return [(model.fates[key], text) for key, text in words.items() if model.fates[key]]


def _merging(name: str, tensors: int, agreement: Agreement) -> _Merging:
    cosine, disagreement = agreement.cosine, agreement.disagreement
    verdict = "independent"
    if cosine is not None and cosine <= APART:
        verdict = "pull apart"
    elif cosine is not None and cosine >= TOGETHER:
        verdict = "pull together"
    return _Merging(
        name=f"{name} ({tensors:,})" if tensors > 1 else name,
        cosine="" if cosine is None else f"{cosine:.3f}",
        disagreement="" if disagreement is None else f"{disagreement:.1%}",
        verdict=verdict,
        is_opposed=verdict == "pull apart",
    )
