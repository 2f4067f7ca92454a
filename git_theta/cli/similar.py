"""``git theta similar``."""

from __future__ import annotations

from typing import Literal

import click

from git_theta.cli.arguments import PathsAfterDashes
from git_theta.cli.text import print_json, table
from git_theta.commands.similar import Similarities, find, similar
from git_theta.core.messages import short_id
from git_theta.git import revisions
from git_theta.workspace import open_workspace


@click.command("similar", cls=PathsAfterDashes)
@click.argument("words", nargs=-1, required=True, metavar="REV [OTHER...] [-- PATH...]")
@click.option("--matrix", is_flag=True, help="Show the cosines of all pairs.")
@click.option("--exact", is_flag=True, help="Decode what differs, and compare every element.")
@click.option("--task2vec", is_flag=True, help="Rank by the distance of Fisher diagonals.")
@click.option("--base", metavar="REV", help="Take differences from REV.")
@click.option("-n", "limit", type=click.IntRange(min=1), help="Show this many at most.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    words: tuple[str, ...],
    paths: tuple[str, ...] | None,
    matrix: bool,
    exact: bool,
    task2vec: bool,
    base: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Rank revisions by how similar their task vectors are to that of REV.

    OTHER is a revision, or a glob of branches and tags; by default all branches and tags are
    ranked. A task vector is the difference between a revision and the common ancestor of all of
    them, or --base; that of an adapter is the product of its factors. COSINE is 1 for the same
    direction, and about 0 for unrelated changes.

    Task vectors are projected at random, with a fixed seed, and the projections are kept: a cosine
    is off by about 0.01, and the next time nothing is decoded. --exact compares every element.

    --task2vec ranks by which parameters the tasks use: the symmetric distance, 0 to 1, of Achille
    and others (2019) between the Fisher diagonals beside the checkpoints
    (model.fisher.safetensors). All of them are decoded each time.

    \b
    Examples:
      git theta similar experiment
      git theta similar experiment 'runs/*' -n 10
      git theta similar main math code medicine --matrix --exact
      git theta similar law --task2vec
      git theta similar HEAD 'adapters/*' --json -- adapter/adapter_model.safetensors
    """
    with open_workspace() as workspace:
        found = find(workspace.repo, words)
        inside = [revisions.path_in(workspace.repo, path) for path in paths or ()]
        pairs: Literal["no", "first", "all"] = "all" if matrix else "first"
        done = similar(workspace, found, inside, base, exact, pairs if task2vec else "no")
    if as_json:
        print_json(_document(done, matrix, limit))
    elif matrix:
        click.echo(_matrix(done))
    else:
        click.echo(_ranking(done, limit))


def _document(done: Similarities, matrix: bool, limit: int | None) -> dict[str, object]:
    rows = range(len(done.revisions)) if matrix else done.ranked()[:limit]
    document: dict[str, object] = {
        "base": done.base,
        "paths": done.paths,
        "exact": done.is_exact,
        "revision": done.revisions[0].name,
        "commit": done.revisions[0].commit,
        "norm": done.norm(0),
        "others": [
            {
                "revision": done.revisions[at].name,
                "commit": done.revisions[at].commit,
                "cosine": done.cosine(0, at),
                "norm": done.norm(at),
                **({} if done.distances is None else {"task2vec": done.distance(0, at)}),
            }
            for at in rows
            if at
        ],
    }
    if matrix:
        document["matrix"] = [[done.cosine(row, column) for column in rows] for row in rows]
        if done.distances is not None:
            apart = [[done.distance(row, column) for column in rows] for row in rows]
            document["task2vec_matrix"] = apart
    return document


def _ranking(done: Similarities, limit: int | None) -> str:
    is_apart = done.distances is not None
    cells = [
        (
            *([_number(done.distance(0, at))] if is_apart else ()),
            _number(done.cosine(0, at)),
            "-" if (norm := done.norm(at)) is None else f"{norm:.3g}",
            short_id(done.revisions[at].commit),
            done.revisions[at].name,
        )
        for at in done.ranked()[:limit]
    ]
    header = (*(["TASK2VEC"] if is_apart else ()), "COSINE", "NORM", "COMMIT", "REVISION")
    return table(header, cells, right=range(2 + is_apart))


def _matrix(done: Similarities) -> str:
    count = len(done.revisions)
    value = done.cosine if done.distances is None else done.distance
    header = ["", *(str(at + 1) for at in range(count)), "REVISION"]
    rows = [
        [
            str(row + 1),
            *(_number(value(row, column)) for column in range(count)),
            done.revisions[row].name,
        ]
        for row in range(count)
    ]
    return table(header, rows, right=range(count + 1))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
