"""``git theta track``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from git_theta.cli.text import human, print_json, printable, table
from git_theta.commands import whole_files
from git_theta.core.messages import as_typed, plural
from git_theta.errors import UsageError
from git_theta.git import Repository, attributes, config
from git_theta.git.worktree import require_work_tree


@click.command("track")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option(
    "--suggest", is_flag=True, help="Find files with tensors, and print patterns for them."
)
@click.option("--json", "as_json", is_flag=True, help="Print the patterns as JSON.")
def command(patterns: tuple[str, ...], suggest: bool, as_json: bool) -> None:
    """Track the files that match PATTERN; without one, list patterns.

    Adds lines to .gitattributes in the current folder, below any line that would override them.
    Quote the pattern, or the shell replaces it by file names.

    \b
    Examples:
      git theta track "*.safetensors"
      git theta track "checkpoints/*.pt" "*.bin"
      git theta track
      git theta track --suggest
    """
    if suggest:
        if patterns:
            raise UsageError("--suggest looks for patterns and takes none")
        _suggest(as_json)
        return
    folder = Path()
    with Repository.discover() as repo:
        require_work_tree(repo, "track")
        added = attributes.track(folder, patterns)
        held = whole_files.in_index(repo) if added else []
        installed = config.state(repo.git_dir).runnable
    if as_json:
        print_json({"patterns": attributes.patterns(folder)})
        return
    for pattern in patterns:
        how = "Tracking" if pattern in added else "Tracked already:"
        click.echo(f"{how} {printable(pattern)}{_remark(folder, pattern)}")
    if held:
        are = "is" if len(held) == 1 else "are"
        count = plural(len(held), "tracked file")
        click.echo(f"{count} {are} already in Git, whole or as a Git LFS pointer")
    if patterns:
        if not installed:
            click.echo("git-theta is not registered with Git, which would store the files whole")
        first = "" if installed else "git theta install, then "
        rest = " && git add --renormalize ." if held else ", then the files"
        click.echo(f"Next: {first}git add .gitattributes{rest}")
    elif listed := attributes.patterns(folder):
        click.echo("\n".join(listed))
    else:
        click.echo("no pattern is tracked by the .gitattributes of this folder", err=True)


def _suggest(as_json: bool) -> None:
    from git_theta.commands.suggestions import suggestions  # with numpy, 0.1 s

    with Repository.discover() as repo:
        require_work_tree(repo, "track")
        rows = suggestions(repo)
    if as_json:
        print_json({"suggestions": [asdict(row) for row in rows]})
        return
    if not rows:
        click.echo("No file of 64 KiB or more with tensors in it is untracked here.")
        return
    cells = [
        (printable(row.pattern), str(row.files), human(row.size), ", ".join(row.formats))
        for row in rows
    ]
    click.echo(table(("PATTERN", "FILES", "SIZE", "FORMAT"), cells, right=(1, 2)))
    click.echo(f"\nNext: git theta track {' '.join(as_typed(row.pattern) for row in rows)}")


def _remark(folder: Path, pattern: str) -> str:
    if attributes.matches(folder, pattern):
        return ""
    if attributes.matches(folder, attributes.without_classes(pattern)):
        return " (its brackets taken as they are: as a set, no file matches)"
    return " (no file matches it yet)"
