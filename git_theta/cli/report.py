"""``git theta report``."""

from __future__ import annotations

from pathlib import Path

import click

from git_theta.cli.arguments import PathsAfterDashes
from git_theta.cli.exit_handling import end_with
from git_theta.cli.report_page import drawing
from git_theta.commands.report import report
from git_theta.core.files import atomic_file
from git_theta.core.messages import as_typed
from git_theta.errors import ManifestError, UsageError
from git_theta.workspace import open_workspace

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("report", cls=PathsAfterDashes)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--html", type=_FILE, help="Write a page to this file.")
@click.option("--png", type=_FILE, help="Write the heat map to this file.")
def command(
    first: str, second: str, paths: tuple[str, ...] | None, html: Path | None, png: Path | None
) -> None:
    """Draw what changed from A to B, as one self-contained HTML page.

    A heat map shows the relative change by layer and module. Further charts show how many tensors
    changed by how much, the singular values of the largest changes, and the commits in between
    with what each stored. If A and B are branches that diverged, cosines and signs of their
    changes since the common ancestor show what merges well. The page runs no script and loads
    nothing.

    \b
    Examples:
      git theta report v1.0 main --html report.html
      git theta report main experiment --html report.html -- model.safetensors
      git theta report main experiment --png heat-map.png
    """
    if html is None and png is None:
        raise UsageError(
            "nothing to write",
            hint=f"git theta report {as_typed(first)} {as_typed(second)} --html report.html",
        )
    drawing.require()
    # Imported here: the message above must not need what it asks for.
    from git_theta.cli.report_page import page

    unread = list[ManifestError]()
    with open_workspace() as workspace:
        found = report(workspace, (first, second), paths or (), unread.append)
    if png:
        _write(png, page.picture(found))
    if html:
        _write(html, page.html(found))
    end_with(unread)


def _write(target: Path, content: bytes | None) -> None:
    if content is None:
        raise UsageError("no tensor changed in a way that can be measured: there is no heat map")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: no such folder")
    with atomic_file(target) as file:
        file.write(content)
    click.echo(f"Written: {target}")
