"""``git theta fetch``."""

from __future__ import annotations

import click

from git_theta import transfer
from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.cli.text import human
from git_theta.core.messages import plural
from git_theta.errors import UsageError
from git_theta.git import Entry, Repository, revisions
from git_theta.workspace import open_workspace


@click.command("fetch")
@click.argument("revs", nargs=-1, metavar="[REV]...")
@click.option("--all", "everything", is_flag=True, help="Fetch for the history of every ref.")
def command(revs: tuple[str, ...], everything: bool) -> None:
    """Download the objects that checkpoints of REV need.

    Without REV: those of HEAD and the index. `git checkout` downloads what it needs by itself; use
    this command to work offline later.

    \b
    Examples:
      git theta fetch
      git theta fetch main v1.0
      git theta fetch --all
    """
    if everything and revs:
        raise UsageError("--all takes no REV", hint="git theta fetch --all")
    with open_workspace(progress=Meter()) as workspace:
        repo = workspace.repo
        entries = repo.range_entries(["--all"], []) if everything else _entries(repo, revs)
        found = [each for _, each in transfer.read_manifests(repo, entries, complain)]
        oids = {oid for each in found for oid in each.objects()}
        missing = {oid for oid in oids if not workspace.store.has(oid)}
        problems = transfer.fetch_each(workspace, found)
        came = [size for oid in missing if (size := workspace.store.size(oid)) is not None]
    click.echo(f"Downloaded {plural(len(came), 'object')} ({human(sum(came))})")
    if problems:
        raise problems[0]


def _entries(repo: Repository, revs: tuple[str, ...]) -> list[Entry]:
    for rev in revs:
        if repo.has_remote(rev) and not revisions.is_revision(repo, rev):
            raise UsageError(
                f"{rev} is a remote; name revisions, every remote is asked for their objects",
                hint="git theta fetch",
            )
    if revs:
        return [entry for rev in revs for entry in repo.tree(revisions.tree_of(repo, rev))]
    return [*repo.index(), *repo.tree("HEAD")]
