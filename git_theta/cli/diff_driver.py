"""``git theta diff-driver``: what `git diff` runs for a checkpoint (git(1), GIT_EXTERNAL_DIFF)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import click

from git_theta.cli import diff_text
from git_theta.cli.exit_handling import complain
from git_theta.cli.text import printable
from git_theta.commands import diff
from git_theta.errors import ThetaError, UsageError
from git_theta.workspace import Workspace, open_workspace

_UNKNOWN = re.compile(r"0+|\.")
_FIELDS = 7


@click.command("diff-driver", hidden=True)
@click.argument("words", nargs=-1)
def command(words: tuple[str, ...]) -> None:
    """Show what changed in a checkpoint; git starts this as `diff.theta.command`.

    Blobs are read by their ids, so the files that git hands over need not be checkpoints.

    \b
    Example (what git itself runs):
      git-theta diff-driver -- PATH OLD-FILE OLD-HEX OLD-MODE NEW-FILE NEW-HEX NEW-MODE
    """
    if len(words) == 1:
        click.echo(printable(f"* Unmerged path {words[0]}"))
        return
    if len(words) < _FIELDS:
        raise UsageError("git starts this command", hint="git theta diff A B")
    path = words[0]
    after = words[_FIELDS] if len(words) > _FIELDS else path
    with (
        open_workspace() as workspace,
        diff.of_blobs(workspace, path, after, _given(words[1:3]), _given(words[4:6])) as pair,
    ):
        for line in _lines(workspace, pair):
            click.echo(line)


def _given(words: Sequence[str]) -> diff.Given:
    file, blob = words
    known = None if _UNKNOWN.fullmatch(blob) else blob
    return diff.Given(known, Path(file) if known is None and file != "/dev/null" else None)


def _lines(workspace: Workspace, pair: diff.Pair) -> list[str]:
    if pair.old.manifest is None and pair.new.manifest is None:
        return [printable(f"Binary files a/{pair.before} and b/{pair.path} differ")]
    workers = workspace.storage.settings.workers
    try:
        return diff_text.lines(diff.diff_of(pair, workers, workspace))
    except ThetaError as error:
        # git would end at the first checkpoint whose objects are not here.
        complain(error.at(pair.path))
    found = diff.unmeasured(pair)
    return diff_text.lines(diff.summarise(pair, found, diff.rows_of(found, by_tensor=False)))
