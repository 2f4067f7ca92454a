"""``git theta fetch-file``."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import click

from git_theta.cli.progress import Meter
from git_theta.cli.text import human, printable
from git_theta.commands.fetch_file import fetch_file


@click.command("fetch-file")
@click.argument("url")
@click.argument("rev")
@click.argument("path")
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to write it; by default under its own name here.",
)
def command(url: str, rev: str, path: str, target: Path | None) -> None:
    """Download the file at PATH in REV of the repository at URL, without a clone.

    Only that commit is fetched, and only what the file needs. REV is a branch, a tag or a full
    commit id. This is meant for CI and machines that serve a model. It also downloads files that
    git-theta does not store.

    \b
    Examples:
      git theta fetch-file https://example.com/team/model.git v1.0 model.safetensors
      git theta fetch-file git@example.com:team/model.git main lora/a.safetensors -o a.safetensors
    """
    written = target or Path(PurePosixPath(path).name)
    size = fetch_file(url, rev, path, written, Meter())
    click.echo(f"Wrote {printable(str(written))} ({human(size)})")
