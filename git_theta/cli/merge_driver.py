"""``git theta merge-driver``: what git runs when both sides changed a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import click

from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.cli.text import printable
from git_theta.core.files import atomic_file
from git_theta.merge.driver import Texts, drive
from git_theta.workspace import open_workspace


# No --help: it would exit with 0, which tells git that the file is merged, and theirs is gone.
@click.command("merge-driver", hidden=True, add_help_option=False)
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("ours", type=click.Path(path_type=Path))
@click.argument("theirs", type=click.Path(path_type=Path))
@click.argument("marker_size", type=int)
@click.argument("path")
def command(base: Path, ours: Path, theirs: Path, marker_size: int, path: str) -> None:
    """Merge three versions of a checkpoint; git starts this as `merge.theta.driver`.

    The result replaces OURS. After a conflict or an error, OURS is unchanged, so the file in the
    work tree is ours, and the exit status tells git.

    \b
    Example (what git itself runs):
      git-theta merge-driver -- %O %A %B %L %P
    """
    texts = Texts(base.read_bytes(), ours.read_bytes(), theirs.read_bytes())
    with open_workspace(progress=Meter()) as workspace:
        merged = drive(workspace, texts, marker_size, path, os.environ)
    with atomic_file(ours, mode=ours.stat().st_mode & 0o777) as output:
        output.write(merged.text)
    for note in merged.notes:
        complain(f"{printable(path)}: {note}")
