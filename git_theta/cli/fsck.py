"""``git theta fsck``."""

from __future__ import annotations

from dataclasses import asdict

import click

from git_theta.cli import remote_check
from git_theta.cli.progress import Meter
from git_theta.cli.text import human, plural, print_json, printable
from git_theta.commands.fsck import Problem, Rebuilt, Report, check, quarantine, rebuild_index
from git_theta.errors import UsageError
from git_theta.workspace import Workspace, open_workspace

_SHOWN_USES = 10


@click.command("fsck")
@click.argument("revs", nargs=-1, metavar="[REV]...")
@click.option("--full", is_flag=True, help="Also rebuild each checkpoint and compare its hash.")
@click.option(
    "--repair",
    is_flag=True,
    help="Quarantine damaged objects, so that fetch downloads them again.",
)
@click.option("--reindex", is_flag=True, help="Rebuild the index from the local objects.")
@click.option(
    "--remote",
    metavar="[NAME]",
    is_flag=False,
    flag_value="",
    help="Ask a remote what it lacks, and name the commits that need it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    revs: tuple[str, ...],
    full: bool,
    repair: bool,
    reindex: bool,
    remote: str | None,
    as_json: bool,
) -> None:
    """Verify the stored objects, of everything or of commits REV.

    Names each damaged or missing object with the checkpoints and tensors that need it. Exits with
    1 if something is wrong.

    \b
    Examples:
      git theta fsck
      git theta fsck HEAD v1.0 --full
      git theta fsck --repair && git theta fetch
      git theta fsck --reindex      if the index was lost
      git theta fsck --remote origin
    """
    if reindex and (revs or full or repair):
        raise UsageError("--reindex goes alone", hint="git theta fsck --reindex; git theta fsck")
    if remote is not None:
        if revs or full or repair or reindex:
            raise UsageError("--remote goes alone", hint="git theta fsck --remote origin")
        remote_check.run(remote, as_json)
        return
    with open_workspace(progress=Meter()) as workspace:
        if reindex:
            _tell_rebuilt(rebuild_index(workspace), as_json)
            return
        report = check(workspace, revs, full=full)
        moved = _repair(workspace, report) if repair else []
    if as_json:
        print_json({**asdict(report), "ok": report.ok, "quarantined": moved})
    else:
        _tell(report, moved)
    if not report.ok:
        raise SystemExit(1)


def _repair(workspace: Workspace, report: Report) -> list[str]:
    return [str(path) for path in quarantine(workspace, report)]


def _tell(report: Report, moved: list[str]) -> None:
    for problem in report.problems:
        _tell_problem(problem)
    for path in moved:
        click.echo(f"quarantined: {path} (git theta fetch downloads it again)")
    click.echo(
        f"{plural(report.checkpoints, 'checkpoint')}, {plural(report.objects, 'object')} "
        f"({human(report.stored)}) verified, {plural(len(report.problems), 'problem')}"
    )
    if report.absent:
        click.echo(f"{plural(report.absent, 'object')} of older commits only on a remote")


def _tell_problem(problem: Problem) -> None:
    click.echo(f"{problem.kind}: {printable(problem.detail)}")
    for use in problem.uses[:_SHOWN_USES]:
        tensor = f" {use.tensor}" if use.tensor is not None else ""
        click.echo(f"  needed by {printable(use.checkpoint + tensor)}")
    if len(problem.uses) > _SHOWN_USES:
        click.echo(f"  and by {len(problem.uses) - _SHOWN_USES:,} more (--json lists them)")
    click.echo(f"  fix: {problem.fix}")


def _tell_rebuilt(rebuilt: Rebuilt, as_json: bool) -> None:
    if as_json:
        print_json(asdict(rebuilt))
        return
    for oid, why in rebuilt.rejected.items():
        click.echo(f"left out: {oid}: {printable(why)}")
    if rebuilt.baseless:
        click.echo(f"left out: {plural(rebuilt.baseless, 'frame')} whose base is not here")
    click.echo(f"The index knows {plural(rebuilt.frames, 'frame')}")
