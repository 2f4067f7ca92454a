"""``git theta untrack``."""

from __future__ import annotations

from pathlib import Path

import click

from git_theta.errors import UsageError
from git_theta.git import Repository, attributes


@click.command("untrack")
@click.argument("patterns", nargs=-1, required=True)
def command(patterns: tuple[str, ...]) -> None:
    """Stop tracking PATTERN: take its line out of .gitattributes in the current folder.

    Files that are committed stay as they are until they are added again, whole, by Git itself.

    \b
    Examples:
      git theta untrack "*.bin"
      git add --renormalize .       store the files as Git would
    """
    Repository.discover().close()
    removed = attributes.untrack(Path(), patterns)
    for pattern in removed:
        click.echo(f"No longer tracking {pattern}")
    if unknown := [pattern for pattern in patterns if pattern not in removed]:
        raise UsageError(
            f"not tracked by the .gitattributes of this folder: {', '.join(unknown)}",
            hint="git theta track lists what is",
        )
