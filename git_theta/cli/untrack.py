"""``git theta untrack``."""

from __future__ import annotations

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
    repo = Repository.discover()
    for pattern in patterns:
        if not attributes.untrack(repo, pattern):
            raise UsageError(
                f"{pattern} is not tracked by the .gitattributes of this folder",
                hint="git theta track lists what is",
            )
        click.echo(f"No longer tracking {pattern}")
