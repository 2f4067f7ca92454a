"""``git theta log``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from git_theta.cli.text import human, plural, print_json, printable
from git_theta.commands.log import Commit, Revision, history
from git_theta.git import Repository


@click.command("log")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@click.option("--rev", default="HEAD", help="Start at this commit.", show_default=True)
@click.option("-n", "limit", type=click.IntRange(min=1), help="Show at most this many commits.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(paths: tuple[Path, ...], rev: str, limit: int | None, as_json: bool) -> None:
    """Show the commits that changed checkpoints.

    Each commit is compared with its first parent: tensors changed, added and removed, how they
    were merged, and the stored bytes that no parent has.

    \b
    Examples:
      git theta log
      git theta log model.safetensors -n 5
      git theta log --rev v1.0 --json
    """
    with Repository.discover() as repo:
        top = repo.top
        inside = [Path(os.path.relpath(path.absolute(), top)).as_posix() for path in paths]
        commits = list(history(repo, rev, inside, limit))
    if as_json:
        print_json([asdict(commit) for commit in commits])
        return
    for commit in commits:
        for line in _lines(commit):
            click.echo(line)


def _lines(commit: Commit) -> list[str]:
    author, subject = printable(commit.author), printable(commit.subject)
    first = f"{commit.commit[:10]} {commit.date[:10]} {author}: {subject}"
    return [first, *(f"  {line}" for row in commit.checkpoints for line in _rows(row))]


def _rows(row: Revision) -> list[str]:
    counts = ((row.changed, "changed"), (row.added, "added"), (row.removed, "removed"))
    what = ", ".join(f"{count:,} {how}" for count, how in counts if count) or "none changed"
    total = plural(row.parameters, "parameter")
    lines = [f"{printable(row.path)}: {what} of {total}, {human(row.stored)} stored"]
    return lines + ([f"  merged by {printable(row.recipe)}"] if row.recipe else [])
