"""``git theta fetch``."""

from __future__ import annotations

import click

from git_theta import transfer
from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.cli.text import human, plural
from git_theta.errors import UsageError
from git_theta.git import Entry, Repository, revisions
from git_theta.workspace import open_workspace


@click.command("fetch")
@click.argument("revs", nargs=-1, metavar="[REV]...")
@click.option("--all", "everything", is_flag=True, help="Of the history of every ref.")
def command(revs: tuple[str, ...], everything: bool) -> None:
    """Download the objects that checkpoints of REV need.

    Without REV: those of HEAD and the index. `git checkout` downloads what it needs by itself;
    fetch ahead to work offline.

    \b
    Examples:
      git theta fetch
      git theta fetch main v1.0
      git theta fetch --all
    """
    if everything and revs:
        raise UsageError("--all goes without REV", hint="git theta fetch --all")
    with open_workspace(progress=Meter()) as workspace:
        repo = workspace.repo
        entries = repo.range_entries(["--all"], []) if everything else _entries(repo, revs)
        objects = transfer.needed_objects(repo, entries, complain)
        missing = {o: size for o, size in objects.items() if not workspace.store.has(o)}
        transfer.fetch(workspace, missing)
    click.echo(f"Downloaded {plural(len(missing), 'object')} ({human(sum(missing.values()))})")


def _entries(repo: Repository, revs: tuple[str, ...]) -> list[Entry]:
    if revs:
        return [entry for rev in revs for entry in repo.tree(revisions.tree_of(repo, rev))]
    return [*repo.index(), *repo.tree("HEAD")]
