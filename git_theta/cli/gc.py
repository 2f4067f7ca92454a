"""``git theta gc``."""

from __future__ import annotations

import click

from git_theta.cli.exit_handling import complain
from git_theta.cli.text import human, print_json
from git_theta.commands import du
from git_theta.commands.gc import collect
from git_theta.commands.usage import Report
from git_theta.core.messages import plural
from git_theta.errors import UsageError
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
@click.option("--repack", is_flag=True, hidden=True, help="Explain why there is no repacking.")
def command(dry_run: bool, days: float, as_json: bool, repack: bool) -> None:
    """Remove local objects that nothing needs any more.

    Objects of every commit, stash, reflog and index are kept. Amended and abandoned commits leave
    other objects behind. Objects are never rewritten, so what was pushed does not change.

    \b
    Examples:
      git theta gc --dry-run
      git reflog expire --expire=now --all && git theta gc --older-than 1
    """
    with open_workspace() as workspace:
        if repack:  # as `git gc` has taught it
            raise _no_repack(du.of_refs(workspace, complain))
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


def _no_repack(usage: Report) -> UsageError:
    """Return the error that says what repacking could free, and what frees more.

    See docs/decisions/0027-no-local-repack.md.
    """
    return UsageError(
        "objects are not repacked: commits name them by the hash of their bytes",
        details=[
            f"{human(usage.unused)} of {human(usage.total.here)} here are frames that no branch or "
            "tag reads (git theta du --all); they stay with their objects",
            "git theta gc removes objects that nothing needs, and git theta prune "
            "--remote-verified those of old versions that a remote has",
        ],
        hint="git theta gc --dry-run; git theta prune --remote-verified --dry-run",
    )
