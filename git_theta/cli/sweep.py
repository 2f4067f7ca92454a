"""``git theta sweep``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from git_theta.cli.merge_options import request_of, strategy_options
from git_theta.cli.progress import Meter
from git_theta.cli.sweep_view import found_lines, point_line, point_table
from git_theta.cli.text import print_json, printable
from git_theta.core.files import atomic_file
from git_theta.core.messages import plural
from git_theta.errors import MergeError, UsageError
from git_theta.git.merge_commit import check_ready
from git_theta.git.merge_heads import Heads, find_heads
from git_theta.git.merge_tree import merge_trees
from git_theta.merge.branches import prepare
from git_theta.merge.completion import Prepared, complete
from git_theta.merge.rules.binding import bind
from git_theta.merge.rules.notation import parse_values
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.request import Request, collecting, with_team
from git_theta.merge.sweep.evaluation import Each, Evaluation, Server
from git_theta.merge.sweep.plot import svg
from git_theta.merge.sweep.run import sweep, with_table
from git_theta.merge.sweep.scores import best, front
from git_theta.merge.sweep.space import Space, Values, drawn, grid, parse_space
from git_theta.merge.sweep.table import Point, Table, summary
from git_theta.workspace import Workspace, open_workspace


@click.command("sweep")
@click.argument("branches", nargs=-1, required=True, metavar="BRANCH...")
@strategy_options
@click.option("--eval", "text", metavar="CMD", required=True, help="Command that scores a merge.")
@click.option("--server", is_flag=True, help="Start CMD once; it reads a path for each point.")
@click.option(
    "--random",
    "count",
    type=click.IntRange(1, 10_000),
    help="Try this many at random.",
)
@click.option("--seed", type=int, default=0, help="Seed of --random; the default is 0.")
@click.option("--minimize", multiple=True, metavar="NAME", help="Lower is better for this score.")
@click.option("--by", metavar="NAME", help="The score that decides, if there are several.")
@click.option("--fresh", is_flag=True, help="Score all points again.")
@click.option("--no-merge", is_flag=True, help="Score the points, and merge nothing.")
@click.option("--all/--no-all", "include_one_sided", default=None, help="As for git theta merge.")
@click.option("-m", "message", metavar="MESSAGE", help="The message of the commit.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command(
    branches: tuple[str, ...],
    strategy: str | None,
    hyperparameters: tuple[str, ...],
    text: str,
    server: bool,
    count: int | None,
    seed: int,
    minimize: tuple[str, ...],
    by: str | None,
    fresh: bool,
    no_merge: bool,
    message: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Merge branches with many values of a strategy's hyperparameters; commit the best.

    -p KEY=START:END:STEP is a range; repeat -p to give a KEY several values. Every combination is
    tried, or --random of them, for which START:END is enough. Each is merged into a scratch
    folder, and the shell runs CMD: {model} stands for the merged checkpoint, {folder} for the
    folder with all files of the merge. The last line that CMD prints is the score: a number,
    several numbers, NAME=NUMBER, or JSON. Higher is better, unless --minimize says otherwise.

    With --server, CMD is started once for all points: it reads the path of each checkpoint as a
    line from its standard input, and prints its score as a line. Nothing is imported again.

    With several scores the Pareto front is printed: the points that no other point beats in every
    score. --by names the score whose best point is committed.

    Every point is saved at once in .git/theta/sweeps: after Ctrl-C the same command continues. The
    commit has the table in its recipe (git theta log), and git theta replay repeats it.

    \b
    Examples:
      git theta sweep rte mnli --strategy task_arithmetic -p lambda=0.1:1.5:0.1 \\
        --eval 'python eval.py {model}'
      git theta sweep rte --strategy ties -p density=0.2 -p density=0.5 -p lambda=0.5:1.5:0.25 \\
        --eval './score.sh {folder}' --minimize loss --by loss
      git theta sweep rte --strategy slerp -p t=0:1 --random 20 --eval 'eval {model}' --no-merge
    """
    evaluation = Server(text) if server else Each(text)
    if strategy is None:
        raise UsageError("a sweep needs --strategy", hint="git theta strategies lists them")
    chosen = strategy_named(strategy)
    space = parse_space(hyperparameters)
    wanted = drawn(space, count, seed, chosen.scaled_by) if count else grid(space, chosen.scaled_by)
    with open_workspace(progress=Meter()) as workspace:
        if not no_merge:
            check_ready(workspace.repo)
        heads = find_heads(workspace.repo, branches)
        if not heads.others:
            raise MergeError("already up to date: there is nothing to merge")
        asked = with_team(request_of(strategy, (), **options), workspace.repo)
        options["include_one_sided"] = asked.include_one_sided
        job = _Job(workspace, heads, strategy, space, options)
        job.check(wanted)
        table = Table(workspace.repo.theta_dir / "sweeps", job.identity(text))
        if not fresh:
            table.load()
        try:
            _run(job, evaluation, wanted, table, as_json)
        finally:
            found = table.points(wanted)
            _report(found, table.file, set(minimize), as_json)
        place = _chosen(found, set(minimize), by)
        if no_merge or place is None:
            return
        job.commit(found, place, message)
    click.echo(f"Merged with {point_line(found[place])}", err=as_json)


@dataclass(frozen=True)
class _Job:
    """What all points have in common."""

    workspace: Workspace
    heads: Heads
    strategy: str
    space: Space
    options: dict[str, Any]

    def request(self, values: Values) -> Request:
        """Return what `git theta merge` would be asked for a point."""
        return request_of(self.strategy, self.space.items(values), **self.options)

    def check(self, wanted: Iterable[Values]) -> None:
        """Raise what a value raises that the strategy does not take, before anything is merged."""
        names = [head.name for head in self.heads.contributors]
        for values in wanted:
            bind(strategy_named(self.strategy), parse_values(self.space.items(values)), names)

    def identity(self, text: str) -> dict[str, Any]:
        """Return what makes the scores of points comparable."""
        commits = {head.name: head.commit for head in self.heads.contributors}
        options = {key: value for key, value in self.options.items() if key != "device"}
        return {
            "head": self.heads.head.commit,
            "contributors": commits,
            "base": self.heads.base,
            "strategy": self.strategy,
            "fixed": list(self.space.fixed),
            "options": options | {"rules": list(options["rules"])},
            "eval": text,
        }

    def run(
        self, evaluation: Evaluation, wanted: Sequence[Values], table: Table
    ) -> Iterable[Point]:
        """Score what has no scores; see ``sweep``."""
        merged_tree = merge_trees(self.workspace.repo, self.heads, collecting)

        def plan(values: Values) -> Prepared:
            request = self.request(values)
            return prepare(self.workspace, self.heads, request, merged_tree=merged_tree)

        return sweep(self.workspace, plan, evaluation, wanted, table)

    def commit(self, points: Sequence[Point], place: int, message: str | None) -> None:
        """Merge with the values of one point, and commit the result with the table."""
        prepared = prepare(self.workspace, self.heads, self.request(points[place].values))
        prepared = with_table(prepared, summary(points))
        for note in complete(self.workspace, prepared, message, commit=True):
            click.echo(printable(note), err=True)


def _run(
    job: _Job, evaluation: Evaluation, wanted: Sequence[Values], table: Table, as_json: bool
) -> None:
    known = sum(table.scored(values) is not None for values in wanted)
    if known:
        click.echo(f"{known} of {plural(len(wanted), 'point')} known from {table.file}", err=True)
    for number, point in enumerate(job.run(evaluation, wanted, table), known + 1):
        click.echo(f"[{number}/{len(wanted)}] {point_line(point)}", err=as_json)


def _report(points: Sequence[Point], file: Path, minimized: set[str], as_json: bool) -> None:
    scored = [place for place, point in enumerate(points) if point.scores]
    if as_json:
        print_json([point_table(point) for point in points])
    if not scored:
        return
    places = [scored[at] for at in front([points[place].scores for place in scored], minimized)]
    drawing = file.with_suffix(".svg")
    with atomic_file(drawing, sync_content=False, sync_name=False) as output:
        output.write(svg(points, places).encode("utf-8", "replace"))
    for line in found_lines(points, places):
        click.echo(line, err=as_json)
    click.echo(f"Table: {printable(str(file))}\nPlot: {printable(str(drawing))}", err=as_json)


def _chosen(points: Sequence[Point], minimized: set[str], by: str | None) -> int | None:
    """Return the place of the point to commit, if there is no doubt which that is."""
    scored = [place for place, point in enumerate(points) if point.scores]
    if not scored:
        raise MergeError("no point has a score")
    scores = [points[place].scores for place in scored]
    names = list(scores[0])
    for name in (*minimized, *([by] if by else [])):
        if name not in names:
            hint = f"known ones: {', '.join(names)}"
            raise UsageError(f"there is no score called {name}", hint=hint)
    if by is None and len(names) > 1:
        return None
    return scored[best(scores, minimized, by or names[0])]
