"""Command line of the harness: see ``scripts/reliability --help``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import click

from harness import damage, together
from harness import pairs as pairing
from harness.faults import ACTIONS
from harness.points import Points
from harness.scenes import SCENES


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--keep", type=click.Path(path_type=Path), help="Work here, and leave what broke.")
@click.pass_context
def main(context: click.Context, keep: Path | None) -> None:
    """Break git-theta on purpose, and check that nothing is lost."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise click.UsageError(f"{keep} is not empty, and may hold what another run found")
    context.obj = keep or Path(context.with_resource(tempfile.TemporaryDirectory()))


@main.command()
@click.option("--scene", "names", multiple=True, type=click.Choice(list(SCENES)))
@click.option("--action", "actions", multiple=True, type=click.Choice(ACTIONS))
@click.option("--points", default=500, show_default=True, help="At most so many of each command.")
@click.option("--at", "calls", multiple=True, type=int, help="Only at this call; repeats a case.")
@click.pass_obj
def points(
    folder: Path,
    names: tuple[str, ...],
    actions: tuple[str, ...],
    points: int,
    calls: tuple[int, ...],
) -> None:
    """Kill a command, or fail its writes, at each call that changes a file."""
    went = Points(folder)
    problems: list[str] = []
    for name in names or SCENES:
        for action in ACTIONS:
            if actions and action not in actions:
                continue
            start = time.monotonic()
            tally = None
            for tally in went.go(SCENES[name], action, points, calls):
                click.echo(
                    f"\r{name} {action}: {tally.points} of {tally.calls}", nl=False, err=True
                )
            assert tally is not None
            seconds = time.monotonic() - start
            click.echo(
                f"\r| {name} | {action} | {tally.calls} | {tally.points} | {tally.failed} "
                f"| {len(tally.problems)} | {tally.longest:.1f} s | {seconds:.0f} s |"
            )
            problems += _said(tally.problems)
    _end(problems)


@main.command()
@click.option("--scene", "names", multiple=True, type=click.Choice(pairing.NAMES))
@click.option("--points", default=20, show_default=True, help="At most so many of each pair.")
@click.pass_obj
def pairs(folder: Path, names: tuple[str, ...], points: int) -> None:
    """Stop each command at calls that change a file, while each other one runs."""
    went = Points(folder)
    problems: list[str] = []
    for first, second in pairing.chosen(names):
        *_, tally = pairing.go(went, SCENES[first], SCENES[second], points)
        click.echo(
            f"| {tally.pair} | {tally.points} of {tally.calls} | {tally.refused} refused "
            f"| {len(tally.problems)} |"
        )
        problems += _said(tally.problems)
    _end(problems)


@main.command()
@click.option("--rounds", default=2, show_default=True, help="How often each file is damaged.")
@click.option("--seed", default=0, show_default=True)
@click.pass_obj
def flips(folder: Path, rounds: int, seed: int) -> None:
    """Flip bits in, cut short and remove every file under .git/theta."""
    tally = damage.run(folder, rounds, seed)
    click.echo(f"| {tally.files} files | {tally.damaged} damages | {tally.noticed} noticed |")
    _end(_said(tally.problems))


@main.command()
@click.option("--seconds", default=120.0, show_default=True)
@click.option("--processes", default=4, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.pass_obj
def race(folder: Path, seconds: float, processes: int, seed: int) -> None:
    """Run add, commit, checkout, gc, fetch and push at once over work trees of one repository."""
    tally = together.run(folder, seconds, processes, seed)
    click.echo(f"| {processes} processes | {tally.commands} commands | {tally.refused} refused |")
    _end(_said(tally.problems))


def _said(problems: list[str]) -> list[str]:
    """Print problems as they come: a run may be cut short."""
    for problem in problems:
        click.echo(problem, err=True)
    return problems


def _end(problems: list[str]) -> None:
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
