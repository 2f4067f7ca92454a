"""``git theta ls-files``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict

import click

from git_theta.cli import whole_files
from git_theta.cli.exit_handling import end_with
from git_theta.cli.text import human, print_json, printable, table
from git_theta.commands.listing import CheckpointRow, checkpoint_rows
from git_theta.commands.whole_files import in_index, in_tree
from git_theta.errors import ManifestError
from git_theta.git import Entry, Repository, revisions
from git_theta.store import ObjectStore


@click.command("ls-files")
@click.argument("rev", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(rev: str | None, as_json: bool) -> None:
    """List the checkpoints of the index, or of REV: a commit, or a folder in one.

    STORED counts the stored bytes that a checkpoint needs; shared bytes count for each checkpoint.
    MISSING is the number of its objects that are not downloaded. A checkpoint that cannot be read
    is named, and the exit status is 22.

    \b
    Examples:
      git theta ls-files
      git theta ls-files HEAD~1
      git theta ls-files v1.0:models
      git theta ls-files --json | jq '.checkpoints[].path'
    """
    with Repository.discover() as repo:
        entries = _entries(repo, rev)
        unread = list[ManifestError]()
        rows = checkpoint_rows(repo, ObjectStore(repo.theta_dir), entries, unread.append)
        whole = in_tree(repo, rev, entries) if rev else in_index(repo)
        prefix = "." if rev else os.path.relpath(repo.folder, repo.top)
        documents = whole_files.documents(repo, whole) if as_json else []
        for line in whole_files.lines(repo, whole, prefix):
            click.echo(printable(line), err=True)
    if as_json:
        print_json({"checkpoints": [asdict(row) for row in rows], "whole_files": documents})
    else:
        _print(rows, rev)
    end_with(unread)


def _print(rows: Sequence[CheckpointRow], rev: str | None) -> None:
    header = ("PATH", "FORMAT", "TENSORS", "SIZE", "STORED", "MISSING")
    body = [
        (
            printable(row.path),
            printable(row.format),
            f"{row.tensors:,}",
            human(row.size),
            human(row.stored),
            f"{row.missing:,}",
        )
        for row in rows
    ]
    if body:
        click.echo(table(header, body, right=(2, 3, 4, 5)))
    else:
        click.echo(f"no checkpoint in {printable(rev or 'the index')}", err=True)


def _entries(repo: Repository, rev: str | None) -> list[Entry]:
    if rev is None:
        return repo.index()
    return repo.tree(revisions.tree_of(repo, rev))
