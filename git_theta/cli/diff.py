"""``git theta diff``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from git_theta.cli import diff_text
from git_theta.cli.arguments import PathsAfterDashes
from git_theta.cli.exit_handling import complain, end_with
from git_theta.cli.text import print_json
from git_theta.commands import diff
from git_theta.core.messages import as_typed
from git_theta.core.settings import Settings
from git_theta.errors import ManifestError, UsageError
from git_theta.git import Repository, revisions
from git_theta.workspace import Workspace, open_workspace


@click.command("diff", cls=PathsAfterDashes)
@click.argument("words", nargs=-1, metavar="[A [B]] [--] [PATH]...")
@click.option("--staged", "--cached", "staged", is_flag=True, help="Compare the index with A.")
@click.option("--no-index", is_flag=True, help="Compare two files on disk: FILE FILE.")
@click.option("--all", "by_tensor", is_flag=True, help="Show a line per tensor, not per group.")
@click.option("--stat", is_flag=True, help="Show a line per checkpoint; nothing is decoded.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(["name", "change", "size"]),
    default="name",
    help="Order of the lines; the largest first.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there are differences.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    words: tuple[str, ...],
    paths: tuple[str, ...] | None,
    staged: bool,
    no_index: bool,
    by_tensor: bool,
    stat: bool,
    order: diff.Order,
    exit_code: bool,
    as_json: bool,
) -> None:
    """Show what changed in checkpoints, by groups of tensors.

    A and B work as in `git diff`: without them the index is compared with the work tree, with A
    alone that commit is, and A..B means A B. Only tensors that changed are decoded. RELATIVE is
    the L2 norm of the change over that of the old values, COSINE the cosine of old and new values,
    MAX the largest change of one element, CHANGED the share of elements that changed. With --all,
    RANK is the numerical rank of the change, in a sample of 256 rows and columns. LoRA adapters
    are compared by the products of their factors; with --no-index a folder stands for its adapter.

    \b
    Examples:
      git theta diff
      git theta diff HEAD~1 HEAD -- model.safetensors
      git theta diff main..experiment --all --sort change
      git theta diff v1.0 v2.0 --stat
      git theta diff --no-index old.safetensors new.safetensors
      git theta diff --no-index adapter-1/ adapter-2/ --all
    """
    unread = list[ManifestError]()
    with _opened(words, paths, staged, no_index, unread.append) as (pairs, workspace):
        settings = workspace.storage.settings if workspace else Settings()
        documents = []
        for pair in pairs:
            found = diff.diff_of(
                pair,
                settings.workers,
                workspace,
                by_tensor=by_tensor,
                values=not stat,
                order=order,
            )
            documents.append(diff_text.document(found))
            for line in () if as_json else diff_text.lines(found):
                click.echo(line)
    if as_json:
        print_json(documents)
    end_with(unread)
    if exit_code and documents:
        raise SystemExit(1)


@contextmanager
def _opened(
    words: tuple[str, ...],
    paths: tuple[str, ...] | None,
    staged: bool,
    no_index: bool,
    tell: Callable[[ManifestError], None],
) -> Iterator[tuple[Iterable[diff.Pair], Workspace | None]]:
    """Yield the pairs to compare, and the repository where there is one."""
    if no_index:
        files = [*words, *(paths or ())]
        if len(files) != 2 or staged:
            raise UsageError("two files are needed", hint="git theta diff --no-index FILE FILE")
        with diff.on_disk(Path(files[0]), Path(files[1]), Settings()) as pair:
            yield ([] if pair.state == "unchanged" else [pair]), None
        return
    with open_workspace() as workspace:
        commits, inside = revisions.split(workspace.repo, words, paths)
        if not commits:
            _tell_untracked(workspace.repo, inside)
        with diff.in_repository(workspace, commits, inside, staged, tell) as pairs:
            yield pairs, workspace


def _tell_untracked(repo: Repository, paths: Sequence[str]) -> None:
    """Say that files outside of the index are not compared: `git diff` prints nothing for them."""
    known = {entry.path for entry in repo.index()} if paths else set()
    for path in paths:
        if (repo.folder / path).is_file() and revisions.path_in(repo, path) not in known:
            hint = f"git add {as_typed(path)}, or git theta diff --no-index FILE FILE"
            complain(UsageError("not in the index, so it is not compared", path=path, hint=hint))
