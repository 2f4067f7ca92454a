"""``git theta untrack``."""

from __future__ import annotations

from pathlib import Path

import click

from git_theta.errors import UsageError
from git_theta.git import Repository, attributes
from git_theta.git.worktree import require_work_tree


@click.command("untrack")
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...")
def command(patterns: tuple[str, ...]) -> None:
    """Stop tracking the files that match PATTERN.

    Removes the line of PATTERN from .gitattributes in the current folder. Committed versions stay
    as they are; the next `git add` stores the file whole, as Git stores any file.

    \b
    Examples:
      git theta untrack "*.bin"
      git add --renormalize .       restage the files as plain Git files
    """
    with Repository.discover() as repo:
        require_work_tree(repo, "untrack")
    removed = attributes.untrack(Path(), patterns)
    for pattern in removed:
        click.echo(f"No longer tracking {pattern}")
    if unknown := [pattern for pattern in patterns if pattern not in removed]:
        raise UsageError(
            f"not tracked by the .gitattributes of this folder: {', '.join(unknown)}",
            hint="git theta track lists what is",
        )
