"""``git theta du``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from git_theta.cli.exit_handling import complain
from git_theta.cli.text import human, print_json, table
from git_theta.commands import du
from git_theta.commands.usage import Report, Usage
from git_theta.errors import UsageError
from git_theta.git import revisions
from git_theta.workspace import Workspace, open_workspace

_HEADER = ("", "objects", "bytes", "exclusive", "shared", "here")


@click.command("du")
@click.argument("rev", required=False)
@click.option("--all", "everything", is_flag=True, help="The history of each branch and tag.")
@click.option("--commits", "by_commit", is_flag=True, help="Each commit in the history of REV.")
@click.option("--remote", metavar="NAME", help="Ask a remote what of it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    rev: str | None, everything: bool, by_commit: bool, remote: str | None, as_json: bool
) -> None:
    """Show how much space checkpoints of REV (HEAD by default), commits or branches take.

    Bytes are those of stored objects. Exclusive objects are needed by nothing else in the list:
    they could be removed if the entry were gone. Branches and tags of one commit share a line, and
    so do commits that have the same checkpoints.

    \b
    Examples:
      git theta du
      git theta du v1.0 --remote origin
      git theta du --commits main
      git theta du --all --json
    """
    if everything and (rev or by_commit):
        raise UsageError("--all takes no REV and no --commits", hint="git theta du --all")
    with open_workspace(complain=complain) as workspace:
        report = _report(workspace, rev or "HEAD", everything, by_commit, remote)
    if as_json:
        print_json(_document(report))
    else:
        _tell(report, everything)


def _report(
    workspace: Workspace, rev: str, everything: bool, by_commit: bool, remote: str | None
) -> Report:
    if everything:
        return du.of_refs(workspace, complain, remote)
    if by_commit:
        commit = revisions.commit_of(workspace.repo, rev)
        return du.of_history(workspace, commit, complain, remote)
    return du.of_commit(workspace, revisions.tree_of(workspace.repo, rev), complain, remote)


def _document(report: Report) -> dict[str, Any]:
    return {
        "rows": [{**asdict(row), "shared": row.shared} for row in report.rows],
        "total": asdict(report.total),
        "unneeded": report.unneeded,
        "unused": report.unused,
    }


def _tell(report: Report, everything: bool) -> None:
    if not report.rows:
        click.echo("no checkpoints", err=True)
        return
    header = _HEADER if report.total.there is None else (*_HEADER, "on the remote")
    rows = [_cells(row) for row in (*report.rows, report.total)]
    click.echo(table(header, rows, right=range(1, len(header))))
    if everything and report.unneeded:
        click.echo(
            f"{human(report.unneeded)} of local objects are in none of these histories: only "
            "reflogs, stashes or the index need them, or nothing does (git theta gc)"
        )
    if everything and report.unused:
        click.echo(f"{human(report.unused)} of these are frames that none of them needs")


def _cells(row: Usage) -> tuple[str, ...]:
    there = [] if row.there is None else [row.there]
    sizes = (row.size, row.exclusive, row.shared, row.here, *there)
    return (", ".join(row.names), f"{row.objects:,}", *map(human, sizes))
