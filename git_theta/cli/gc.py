"""``git theta gc``."""

from __future__ import annotations

import click

from git_theta.cli.text import human, print_json
from git_theta.commands.gc import collect
from git_theta.core.messages import plural
from git_theta.workspace import open_workspace

_DAY = 86400.0


@click.command("gc")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@click.option(
    "--older-than",
    "days",
    type=click.FloatRange(min=0),
    default=14.0,
    show_default=True,
    help="Keep objects younger than this many days.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(dry_run: bool, days: float, as_json: bool) -> None:
    """Remove local objects that nothing needs any more.

    Objects of every commit, stash, reflog and index are kept. Amended and abandoned commits leave
    other objects behind. Objects are never rewritten, so what was pushed does not change.

    \b
    Examples:
      git theta gc --dry-run
      git reflog expire --expire=now --all && git theta gc --older-than 1
    """
    with open_workspace() as workspace:
        found = collect(workspace, days * _DAY, dry_run=dry_run)
    if as_json:
        document = {"objects": found.oids, "size": found.size, "kept": found.kept}
        print_json({**document, "shared": found.shared})
        return
    did = "would be removed" if dry_run else "removed"
    click.echo(
        f"{plural(len(found.oids), 'object')} {did} ({human(found.size)}), {found.kept:,} kept"
    )
    if found.shared:
        count, size = plural(len(found.shared), "object"), human(sum(found.shared.values()))
        click.echo(f"{count} {did} from the shared store ({size}): no clone has them")
