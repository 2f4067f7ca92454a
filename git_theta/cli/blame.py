"""``git theta blame``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import click

from git_theta.cli.arguments import PathsAfterDashes
from git_theta.cli.text import print_json, printable, table
from git_theta.commands.blame import Blame, blame
from git_theta.commands.blame_shares import with_shares
from git_theta.core.messages import short_id
from git_theta.errors import UsageError
from git_theta.git import Repository, revisions
from git_theta.workspace import open_workspace

_USAGE = "git theta blame [REV] [--] PATH [GLOB]"


@click.command("blame", cls=PathsAfterDashes)
@click.argument("words", nargs=-1, metavar="[REV] [--] PATH [GLOB]")
@click.option("--all", "by_tensor", is_flag=True, help="Show a line per tensor, not per group.")
@click.option("--shares", is_flag=True, help="Show what each parent of a merge contributed.")
@click.option("--porcelain", is_flag=True, help="Print lines for a script, one per tensor.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    words: tuple[str, ...],
    paths: tuple[str, ...] | None,
    by_tensor: bool,
    shares: bool,
    porcelain: bool,
    as_json: bool,
) -> None:
    """Show the commit that last changed each tensor of a checkpoint.

    Tensors are followed through merges, to the parent that has equal content, and through renames
    of the file and of the tensor. Only manifests are read. GLOB limits the output to tensors whose
    names match; REV is where to begin, HEAD by default.

    If a merge made new content, the merge is shown. With --shares, its change since the common
    ancestor is written as a sum of its parents' changes, by least squares: 0.50 and 0.50 for an
    average. That decodes these tensors.

    A line of --porcelain is COMMIT, DATE, AUTHOR, PATH and TENSOR, separated by tabs, and with
    --shares the shares, separated by commas.

    \b
    Examples:
      git theta blame model.safetensors
      git theta blame model.safetensors 'model.layers.*.q_proj.weight'
      git theta blame v1.0 -- model.safetensors
      git theta blame model.safetensors --shares --json
    """
    with open_workspace() as workspace:
        rev, path, glob = _parted(workspace.repo, words, paths)
        inside = revisions.path_in(workspace.repo, path)
        rows = blame(workspace.repo, rev, inside, glob, by_tensor or porcelain)
        rows = with_shares(workspace, rows) if shares else rows
    if as_json:
        print_json([_document(row) for row in rows])
    elif porcelain:
        for row in rows:
            click.echo("\t".join(map(printable, _porcelain(row))))
    else:
        click.echo(_table(rows, inside))


def _parted(
    repo: Repository, words: Sequence[str], paths: Sequence[str] | None
) -> tuple[str, str, str]:
    """Return revision, path and glob, as `git blame` parts them."""
    before = [*words] if paths is not None else []
    rest = [*(words if paths is None else paths)]
    is_rev = paths is None and len(rest) > 1 and revisions.is_revision(repo, rest[0])
    if is_rev and (repo.folder / rest[0]).exists():
        raise UsageError(
            f"{rest[0]} is both a revision and a file", hint=f"-- separates them: {_USAGE}"
        )
    before = [rest.pop(0)] if is_rev else before
    if len(before) > 1 or not 1 <= len(rest) <= 2:
        raise UsageError("one checkpoint is needed", hint=_USAGE)
    return (before or ["HEAD"])[0], rest[0], (*rest, "*")[1]


def _document(row: Blame) -> dict[str, object]:
    return {"name": row.name, "tensors": row.tensors, **asdict(row.commit)} | {
        "path": row.path,
        "names": row.names,
        "shares": row.shares,
    }


def _porcelain(row: Blame) -> list[str]:
    fields = [row.commit.commit, row.commit.date, row.commit.author, row.path, row.name]
    return fields if row.shares is None else [*fields, ",".join(f"{x:.6g}" for x in row.shares)]


def _table(rows: Sequence[Blame], path: str) -> str:
    header = ("COMMIT", "DATE", "AUTHOR", "TENSOR", "SHARES", "PATH", "SUBJECT")
    cells = [_cells(row, path) for row in rows]
    used = [at for at in range(len(header)) if any(row[at] for row in cells)]
    return table([header[at] for at in used], [[row[at] for at in used] for row in cells])


def _cells(row: Blame, path: str) -> tuple[str, ...]:
    count = len(row.tensors)
    shares = zip(row.commit.parents, row.shares or (), strict=False)
    return (
        short_id(row.commit.commit),
        row.commit.date[:10],
        row.commit.author,
        row.name if count == 1 else f"{row.name} ({count:,})",
        ", ".join(f"{short_id(parent)} {share:.2f}" for parent, share in shares),
        "" if row.path == path else row.path,
        row.commit.subject,
    )
