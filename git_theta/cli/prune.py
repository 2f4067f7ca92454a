"""``git theta prune``."""

from __future__ import annotations

from dataclasses import asdict

import click

from git_theta.cli.exit_handling import complain
from git_theta.cli.push import default_remote
from git_theta.cli.text import human, print_json
from git_theta.commands.prune import Pruned, prune
from git_theta.core.messages import plural
from git_theta.workspace import open_workspace


@click.command("prune")
@click.option("--remote", metavar="NAME", help="The remote; by default that of the upstream.")
@click.option(
    "--remote-verified", "verify", is_flag=True, help="Ask the remote for each object, then remove."
)
@click.option(
    "--recent",
    "days",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Keep what commits of the last N days need.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(remote: str | None, verify: bool, days: float, dry_run: bool, as_json: bool) -> None:
    """Remove local objects that a remote has and that nothing needs at the moment.

    Objects are kept if work trees, indexes, stashes, recent commits or commits that the remote
    lacks need them. Checking out an older commit downloads the rest again. Without
    --remote-verified the remote is not asked, and objects are only counted, not removed: a host
    may have deleted what was pushed there.

    \b
    Examples:
      git theta prune
      git theta prune --remote-verified
      git theta prune --remote-verified --remote backup --recent 0 --dry-run
    """
    with open_workspace() as workspace:
        name = remote or default_remote(workspace.repo)
        found = prune(workspace, name, days, complain, verify=verify, dry_run=dry_run)
    if as_json:
        print_json(asdict(found))
    else:
        _tell(found, verify and not dry_run, verify)


def _tell(found: Pruned, removed: bool, verified: bool) -> None:
    did = "removed" if removed else "would be removed"
    has = "has" if verified else "had when they were pushed or fetched"
    which = f", which {found.remote} {has}" if found.oids else ""
    count = plural(len(found.oids), "object")
    click.echo(f"{count} {did} ({human(found.size)}){which}; {found.kept:,} kept")
    if found.unsafe:
        count = plural(found.unsafe, "more object")
        click.echo(f"{count} stay: {found.remote} is not known to have them")
    if found.oids and not verified:
        click.echo("To ask the remote, then remove them: git theta prune --remote-verified")
