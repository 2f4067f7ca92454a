"""``git theta remote-gc``."""

from __future__ import annotations

from dataclasses import asdict

import click

from git_theta.cli.exit_handling import complain
from git_theta.cli.text import human, print_json
from git_theta.commands.remote_gc import RemoteGarbage, collect
from git_theta.core.messages import plural, short_id
from git_theta.workspace import open_workspace

_SHOWN = 20


@click.command("remote-gc")
@click.argument("remote")
@click.option("-n", "--dry-run", is_flag=True, help="List them; remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(remote: str, dry_run: bool, as_json: bool) -> None:
    """Remove the pointers of objects that no ref of REMOTE needs any more.

    After a squash or a deleted branch, pointers on the remote still name the old objects, so that
    the host keeps them. All refs of the remote are fetched, and pointers that none of them needs
    are removed. The host then decides when to delete the objects themselves.

    \b
    Examples:
      git theta remote-gc origin --dry-run
      git theta remote-gc origin
    """
    with open_workspace() as workspace:
        found = collect(workspace, remote, complain, dry_run=dry_run)
    if as_json:
        print_json(asdict(found))
    else:
        _tell(found, dry_run)


def _tell(found: RemoteGarbage, dry_run: bool) -> None:
    for oid, length in list(found.objects.items())[:_SHOWN]:
        click.echo(f"{short_id(oid)}  {human(length)}")
    if len(found.objects) > _SHOWN:
        click.echo(f"and {len(found.objects) - _SHOWN:,} more (--json lists them)")
    count, size = f"{len(found.objects):,}", human(sum(found.objects.values()))
    objects = plural(found.named, "object")
    click.echo(f"No ref on {found.remote} needs {count} of the {objects} named there ({size})")
    if found.refs:
        did = "would be replaced" if dry_run else "replaced"
        click.echo(f"{plural(len(found.refs), 'pointer ref')} {did}")
