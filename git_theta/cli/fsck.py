"""``git theta fsck``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from git_theta.cli import remote_check
from git_theta.cli.progress import Meter
from git_theta.cli.text import human, print_json, printable
from git_theta.commands.fsck import (
    REPAIR,
    Problem,
    Rebuilt,
    Repaired,
    Report,
    check,
    rebuild_index,
    repair,
)
from git_theta.core.messages import plural, short_id
from git_theta.errors import UsageError
from git_theta.workspace import open_workspace

_SHOWN = 3
_HASH = re.compile(r"\b[0-9a-f]{64}\b")


@click.command("fsck")
@click.argument("revs", nargs=-1, metavar="[REV]...")
@click.option("--full", is_flag=True, help="Also rebuild each checkpoint and compare its hash.")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Also report objects that are only on a remote, and what a sparse checkout leaves out.",
)
@click.option(
    "--repair",
    "mend",
    is_flag=True,
    help="Restore damaged and missing objects from work trees, LFS storage and remotes.",
)
@click.option(
    "--from",
    "places",
    metavar="PATH",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="With --repair: also restore from another clone or a folder of objects.",
)
@click.option("--reindex", is_flag=True, help="Rebuild the index from the local objects.")
@click.option(
    "--remote",
    metavar="[NAME]",
    is_flag=False,
    flag_value="",
    help="Ask a remote which objects it lacks, and name the commits that need them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    revs: tuple[str, ...],
    full: bool,
    everything: bool,
    mend: bool,
    places: tuple[Path, ...],
    reindex: bool,
    remote: str | None,
    as_json: bool,
) -> None:
    """Verify the stored objects, of everything or of commits REV.

    Names each damaged or missing object with the checkpoints and tensors that need it. Exits with
    1 if something is wrong.

    With --repair, objects are copied from any place that has them intact, or encoded again from a
    file that holds their content; damaged objects that cannot be replaced are moved to
    .git/theta/bad.

    \b
    Examples:
      git theta fsck
      git theta fsck HEAD v1.0 --full
      git theta fsck --repair
      git theta fsck --repair --from ../other-clone
      git theta fsck --reindex      if the index was lost
      git theta fsck --remote origin
    """
    if reindex and (revs or full or everything or mend):
        hint = "git theta fsck --reindex; git theta fsck"
        raise UsageError("--reindex takes no other options", hint=hint)
    if remote is not None:
        if revs or full or everything or mend or reindex:
            hint = "git theta fsck --remote origin"
            raise UsageError("--remote takes no other options", hint=hint)
        remote_check.run(remote, as_json)
        return
    if places and not mend:
        raise UsageError("--from needs --repair", hint="git theta fsck --repair --from")
    with open_workspace(progress=Meter()) as workspace:
        if reindex:
            _tell_rebuilt(rebuild_index(workspace), as_json)
            return
        report = check(workspace, revs, full=full, everything=everything)
        repaired = Repaired({}, ())
        if mend and not report.ok:
            repaired = repair(workspace, report, places)
            report = check(workspace, revs, full=full, everything=everything)
    if as_json:
        print_json({**asdict(report), "ok": report.ok, **asdict(repaired)})
    else:
        _tell(report, repaired, mend)
    if not report.ok:
        raise SystemExit(1)


def _tell(report: Report, repaired: Repaired, mended: bool) -> None:
    for oid, origin in repaired.restored.items():
        click.echo(f"restored: {short_id(oid)} from {printable(origin)}")
    for place in repaired.quarantined:
        click.echo(f"quarantined: {printable(place)}")
    for problems in grouped(report.problems):
        _tell_problems(problems, mended)
    click.echo(
        f"{plural(report.checkpoints, 'checkpoint')}, {plural(report.objects, 'object')} "
        f"({human(report.stored)}) verified, {plural(len(report.problems), 'problem')}"
    )
    if report.absent:
        what = plural(report.absent, "object")
        click.echo(f"not checked: {what} of older commits only on a remote (--all)")
    for what in report.skipped:
        click.echo(f"not checked: {printable(what)}")


def grouped(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Problems of the same kind that concern the same checkpoints, together."""
    groups: dict[object, list[Problem]] = {}
    for problem in problems:
        concerned = frozenset(use.checkpoint for use in problem.uses)
        groups.setdefault((problem.kind, problem.fix, concerned), []).append(problem)
    return list(groups.values())


def _tell_problems(problems: list[Problem], mended: bool) -> None:
    for problem in problems[:_SHOWN]:
        click.echo(f"{problem.kind}: {_HASH.sub(_short, printable(problem.detail))}")
    if (more := len(problems) - _SHOWN) > 0:
        click.echo(f"{problems[0].kind}: {plural(more, 'more object')} (--json lists them)")
    # A checkpoint of the index and of HEAD is one; of its tensors a few tell which part it is.
    tensors: dict[str, dict[str | None, None]] = {}
    for use in (use for problem in problems for use in problem.uses):
        tensors.setdefault(use.checkpoint, {})[use.tensor] = None
    names = [name for name in tensors if not (name.startswith(":") and f"HEAD{name}" in tensors)]
    for name in names[:_SHOWN]:
        click.echo(f"  needed by {printable(name)}{_some(list(filter(None, tensors[name])))}")
    if (more := len(names) - _SHOWN) > 0:
        click.echo(f"  and by {plural(more, 'more checkpoint')} (--json lists them)")
    fix = problems[0].fix
    if mended and fix == REPAIR:
        fix = f"{REPAIR} --from PATH  (another clone that has it)"
    click.echo(f"  fix: {fix}")


def _short(hash_: re.Match[str]) -> str:
    return short_id(hash_[0])


def _some(tensors: list[str]) -> str:
    if not tensors:
        return ""
    more = len(tensors) - _SHOWN
    shown = ", ".join(map(printable, tensors[:_SHOWN]))
    return f": {shown}" + (f" and {plural(more, 'more tensor')}" if more > 0 else "")


def _tell_rebuilt(rebuilt: Rebuilt, as_json: bool) -> None:
    if as_json:
        print_json(asdict(rebuilt))
        return
    for oid, why in rebuilt.rejected.items():
        click.echo(f"left out: {short_id(oid)}: {printable(why)}")
    if rebuilt.baseless:
        click.echo(f"left out: {plural(rebuilt.baseless, 'frame')} whose base is missing")
    click.echo(f"The index knows {plural(rebuilt.frames, 'frame')}")
