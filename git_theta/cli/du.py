"""``git theta du``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from git_theta.cli.exit_handling import complain
from git_theta.cli.text import human, print_json, table
from git_theta.commands.du import Report, Usage, of_commit, of_refs
from git_theta.errors import UsageError
from git_theta.git import revisions
from git_theta.workspace import open_workspace

_HEADER = ("", "objects", "bytes", "exclusive", "shared", "here")


@click.command("du")
@click.argument("rev", required=False)
@click.option("--all", "everything", is_flag=True, help="The history of each branch and tag.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(rev: str | None, everything: bool, as_json: bool) -> None:
    """Show what the checkpoints of REV take, HEAD by default; with --all, branches and tags.

    Bytes are those of stored objects. Exclusive are objects that nothing else in the list needs:
    what would be free if it were gone. Branches and tags of one commit stand in one line.

    \b
    Examples:
      git theta du
      git theta du v1.0
      git theta du --all --json
    """
    if everything and rev:
        raise UsageError("--all goes without REV", hint="git theta du --all")
    with open_workspace(complain=complain) as workspace:
        if everything:
            report = of_refs(workspace, complain)
        else:
            report = of_commit(
                workspace, revisions.tree_of(workspace.repo, rev or "HEAD"), complain
            )
    if as_json:
        print_json(_document(report))
    else:
        _tell(report, everything)


def _document(report: Report) -> dict[str, Any]:
    return {
        "rows": [{**asdict(row), "shared": row.shared} for row in report.rows],
        "total": asdict(report.total),
        "unneeded": report.unneeded,
    }


def _tell(report: Report, everything: bool) -> None:
    if not report.rows:
        click.echo("no checkpoint is there", err=True)
        return
    rows = [_cells(row) for row in (*report.rows, report.total)]
    click.echo(table(_HEADER, rows, right=range(1, len(_HEADER))))
    if everything and report.unneeded:
        click.echo(
            f"{human(report.unneeded)} here are in the history of none of them: reflogs, stashes, "
            "the index or nothing needs them (git theta gc)"
        )


def _cells(row: Usage) -> tuple[str, ...]:
    sizes = (row.size, row.exclusive, row.shared, row.here)
    return (", ".join(row.names), f"{row.objects:,}", *map(human, sizes))
