"""``git theta status``."""

from __future__ import annotations

from dataclasses import asdict

import click

from git_theta.cli.text import human, plural, print_json, printable
from git_theta.commands.status import Change, changes
from git_theta.workspace import open_workspace

_WORK_TREE = {
    "modified": "the file differs from the index: git add it",
    "missing": "the file is gone: git checkout it, or git rm it",
    "manifest": "the file is still a manifest: git theta checkout",
}


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, unchanged checkpoints too.")
def command(as_json: bool) -> None:
    """Show changed checkpoints: tensors and bytes stored.

    \b
    Examples:
      git theta status
      git theta status --json
    """
    with open_workspace() as workspace:
        rows = changes(workspace)
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    told = [line for row in rows for line in _lines(row)]
    for line in told or [f"{plural(len(rows), 'checkpoint')}, nothing changed"]:
        click.echo(line)


def _lines(row: Change) -> list[str]:
    path, lines = printable(row.path), []
    if row.staged != "unchanged":
        lines.append(f"{row.staged}: {path}: {_staged(row)}")
    if row.work_tree in _WORK_TREE:
        lines.append(f"{path}: {_WORK_TREE[row.work_tree]}")
    if row.missing:
        lines.append(f"{path}: {plural(row.missing, 'object')} not here: git theta fetch")
    return lines


def _staged(row: Change) -> str:
    if row.staged == "modified":
        counts = ((row.changed, "changed"), (row.added, "added"), (row.removed, "removed"))
        what = ", ".join(f"{count:,} {how}" for count, how in counts if count) or "none changed"
        return f"{what} of {plural(row.parameters, 'parameter')}, {human(row.stored)} stored"
    return f"{plural(row.parameters, 'parameter')}, {human(row.stored)} stored"
