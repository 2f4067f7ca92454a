"""``git theta track``."""

from __future__ import annotations

import click

from git_theta.cli.text import print_json
from git_theta.git import Repository, attributes


@click.command("track")
@click.argument("patterns", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the tracked patterns as JSON.")
def command(patterns: tuple[str, ...], as_json: bool) -> None:
    """Track files whose path matches PATTERN; without one, list what is tracked.

    Adds lines to .gitattributes in the current folder, after any line that would override them.
    Quote the pattern, or the shell replaces it by file names.

    \b
    Examples:
      git theta track "*.safetensors"
      git theta track "checkpoints/*.pt" "*.bin"
      git theta track
    """
    repo = Repository.discover()
    for pattern in patterns:
        changed = attributes.track(repo, pattern)
        if not as_json:
            click.echo(f"Tracking {pattern}" if changed else f"{pattern} is tracked already")
    if as_json:
        print_json({"patterns": attributes.patterns(repo)})
    elif patterns:
        click.echo("Next: git add .gitattributes, then the files")
    else:
        for pattern in attributes.patterns(repo):
            click.echo(pattern)
