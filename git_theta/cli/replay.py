"""``git theta replay``."""

from __future__ import annotations

from dataclasses import asdict

import click

from git_theta.cli.progress import Meter
from git_theta.cli.text import print_json, printable
from git_theta.core.messages import plural
from git_theta.errors import MergeError
from git_theta.merge.replay import Replayed, replay
from git_theta.workspace import open_workspace

_SHOWN = 3


@click.command("replay")
@click.argument("commit", default="HEAD", metavar="[COMMIT]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(commit: str, as_json: bool) -> None:
    """Repeat the merges of COMMIT, and compare the bits.

    A merged checkpoint carries its recipe: versions, strategies and hyperparameters. On a CPU the
    same recipe gives the same bits on every machine; on a GPU they are equal up to rounding, and
    with strategies that factorise matrices (svd, tsv) to 1e-9 of the largest number of a tensor and
    the last stored digit.
    Without COMMIT: HEAD.

    \b
    Examples:
      git theta replay
      git theta replay v2.0 --json
    """
    with open_workspace(progress=Meter()) as workspace:
        done = replay(workspace, commit)
    if as_json:
        print_json([asdict(row) for row in done])
    else:
        for row in done:
            click.echo(_line(row))
    if not all(row.same or row.close for row in done):
        raise MergeError(f"the merges of {commit} give other bits than it has")


def _line(row: Replayed) -> str:
    path = printable(row.path)
    if row.same:
        return f"{path}: the same bits"
    if row.close:
        number = plural(len(row.differing), "tensor")
        return f"{path}: the same within rounding; {number} of strategies that promise no more"
    names = ", ".join(map(printable, row.differing[:_SHOWN]))
    more = ", ..." if len(row.differing) > _SHOWN else ""
    where = ""
    if row.merged_on != row.replayed_on:
        where = f"; merged on {row.merged_on}, replayed on {row.replayed_on}"
    return f"{path}: {plural(len(row.differing), 'tensor')} with other bits: {names}{more}{where}"
