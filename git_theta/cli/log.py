"""``git theta log``."""

from __future__ import annotations

from dataclasses import asdict

import click

from git_theta.cli.arguments import PathsAfterDashes
from git_theta.cli.text import flat, print_json, printable, shortened, tensor_changes
from git_theta.commands.log import Commit, Revision, history
from git_theta.core.messages import plural, short_id
from git_theta.git import Repository, revisions

# Not --all: our own refs name objects, and stashes are nobody's history.
_EVERYTHING = ("HEAD", "--branches", "--tags", "--remotes")


@click.command("log", cls=PathsAfterDashes)
@click.argument("words", nargs=-1, metavar="[REV]... [--] [PATH]...")
@click.option("--all", "everything", is_flag=True, help="Begin at every branch and tag.")
@click.option("-n", "limit", type=click.IntRange(min=1), help="Show this many commits at most.")
@click.option(
    "--recipe", "recipe", metavar="COMMIT", help="Print a merge as a YAML recipe of mergekit."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    words: tuple[str, ...],
    paths: tuple[str, ...] | None,
    everything: bool,
    limit: int | None,
    recipe: str | None,
    as_json: bool,
) -> None:
    """Show the commits that changed checkpoints: tensors, stored bytes, how they were merged.

    REV is whatever `git log` takes, such as a branch, a tag or a range; HEAD by default. One PATH
    is followed through renames. Each commit is compared with its first parent, a model in several
    files as one; stored bytes are those that no parent has.

    \b
    Examples:
      git theta log
      git theta log model.safetensors -n 5
      git theta log main..experiment -- model.safetensors
      git theta log v1.0 --json
      git theta log --recipe HEAD > merge.yml
    """
    with Repository.discover() as repo:
        if recipe is not None:
            # Imported here: with what merges it takes 60 ms.
            from git_theta.merge.recorded import mergekit_recipes

            click.echo("---\n".join(mergekit_recipes(repo, recipe)), nl=False)
            return
        chosen, inside = revisions.split(repo, words, paths)
        chosen += _EVERYTHING if everything else ()
        commits = list(history(repo, chosen or [revisions.head(repo)], inside, limit))
    if as_json:
        print_json([_document(commit) for commit in commits])
    for commit in () if as_json else commits:
        for line in _lines(commit):
            click.echo(line)
    if not commits:
        where = " ".join([*words, *(("--", *paths) if paths else ())])
        click.echo(printable(f"no commit changed a checkpoint{where and f': {where}'}"), err=True)


def _document(commit: Commit) -> dict[str, object]:
    return {**asdict(commit), "checkpoints": [flat(row) for row in commit.checkpoints]}


def _lines(commit: Commit) -> list[str]:
    author, subject = printable(commit.author), printable(commit.subject)
    first = f"{short_id(commit.commit)} {commit.date[:10]} {author}: {subject}"
    return [first, *(f"  {line}" for row in commit.checkpoints for line in _rows(row))]


def _rows(row: Revision) -> list[str]:
    path = f"{row.before} -> {row.path}" if row.state == "renamed" else row.path
    path += f" in {plural(len(row.files), 'file')}" if row.files else ""
    first = f"{row.state}: {path}: {tensor_changes(row.state, row.difference)}"
    lines = [first, f"  merged by {row.recipe}"] if row.recipe else [first]
    return [shortened(printable(line)) for line in lines]
