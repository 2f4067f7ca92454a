"""``git theta track``."""

from __future__ import annotations

from pathlib import Path

import click

from git_theta.cli.text import print_json, printable
from git_theta.commands import whole_files
from git_theta.core.messages import plural
from git_theta.git import Repository, attributes


@click.command("track")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--json", "as_json", is_flag=True, help="Print the tracked patterns as JSON.")
def command(patterns: tuple[str, ...], as_json: bool) -> None:
    """Track the files that match PATTERN; without one, list patterns.

    Adds lines to .gitattributes in the current folder, below any line that would override them.
    Quote the pattern, or the shell replaces it by file names.

    \b
    Examples:
      git theta track "*.safetensors"
      git theta track "checkpoints/*.pt" "*.bin"
      git theta track
    """
    folder = Path()
    with Repository.discover() as repo:
        added = attributes.track(folder, patterns)
        held = whole_files.in_index(repo) if added else []
    if as_json:
        print_json({"patterns": attributes.patterns(folder)})
        return
    for pattern in patterns:
        how = "Tracking" if pattern in added else "Tracked already:"
        click.echo(f"{how} {printable(pattern)}{_remark(folder, pattern)}")
    if held:
        click.echo(f"Git holds {plural(len(held), 'file')} of these already, whole or as a pointer")
        click.echo("Next: git add .gitattributes && git add --renormalize .")
    elif patterns:
        click.echo("Next: git add .gitattributes, then the files")
    else:
        click.echo("\n".join(attributes.patterns(folder)))


def _remark(folder: Path, pattern: str) -> str:
    if attributes.matches(folder, pattern):
        return ""
    if attributes.matches(folder, attributes.without_classes(pattern)):
        return " (its brackets taken as they are: as a set, no file matches)"
    return " (no file matches it yet)"
