"""``git theta fsck --remote``: what a remote lacks."""

from __future__ import annotations

from dataclasses import asdict

import click

from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.cli.push import default_remote
from git_theta.cli.text import print_json
from git_theta.core.messages import plural, short_id
from git_theta.transfer.remote_check import RemoteReport, check_remote
from git_theta.workspace import open_workspace

_SHOWN_USES = 3
_SHOWN_OBJECTS = 20


def run(name: str, as_json: bool) -> None:
    """Check the remote called ``name`` (the default one if empty); exit with 1 if objects miss."""
    with open_workspace(progress=Meter()) as workspace:
        report = check_remote(workspace, name or default_remote(workspace.repo), complain)
    if as_json:
        print_json({**asdict(report), "ok": report.ok})
    else:
        _tell(report)
    if not report.ok:
        raise SystemExit(1)


def _tell(report: RemoteReport) -> None:
    for missing in report.missing[:_SHOWN_OBJECTS]:
        where = "is available locally" if missing.here else "is missing locally, too"
        click.echo(f"missing on {report.remote}: {short_id(missing.oid)}, which {where}")
        for use in missing.needed_by[:_SHOWN_USES]:
            click.echo(f"  needed by {use}")
        if len(missing.needed_by) > _SHOWN_USES:
            click.echo(f"  and by {len(missing.needed_by) - _SHOWN_USES:,} more")
    if len(report.missing) > _SHOWN_OBJECTS:
        click.echo(f"and {len(report.missing) - _SHOWN_OBJECTS:,} more (--json lists them)")
    for ref in report.unseen:
        click.echo(f"not checked: {ref} of {report.remote} is not in this clone: git fetch")
    there = report.objects - len(report.missing)
    click.echo(f"{report.remote} has {there:,} of {plural(report.objects, 'object')}")
    if any(missing.here for missing in report.missing):
        click.echo(f"  fix: git theta push --all {report.remote}")
    if any(not missing.here for missing in report.missing):
        click.echo("  in a clone that has the others: git theta push --all")
