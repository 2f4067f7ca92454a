"""``git theta checkout``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.cli.text import printable
from git_theta.filters.deferred import checkout_deferred, stubs
from git_theta.workspace import Workspace, open_workspace


@click.command("checkout")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
def command(paths: tuple[Path, ...]) -> None:
    """Replace manifests in the work tree by their checkpoints.

    Without PATH: all of them. Files that are not manifests are left alone.

    \b
    Examples:
      git theta checkout
      git theta checkout model.safetensors
    """
    with open_workspace(progress=Meter(), complain=complain) as workspace:
        chosen = [_inside(workspace, path) for path in paths] or _tracked(workspace)
        done = checkout_deferred(workspace, stubs(workspace, chosen))
    for path in done:
        click.echo(f"Restored {printable(path)}")


def _tracked(workspace: Workspace) -> list[str]:
    repo = workspace.repo
    return [entry.path for entry, _ in repo.manifests(repo.index())]


def _inside(workspace: Workspace, path: Path) -> str:
    top = workspace.repo.work_tree or Path()
    return Path(os.path.relpath(path.absolute(), top)).as_posix()
