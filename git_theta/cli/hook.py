"""``git theta hook NAME``: what our hooks run (githooks(5)).

Those before a push and after a checkout go past this module, and past click: see
``git_theta/__main__.py``.
"""

from __future__ import annotations

from pathlib import Path

import click

from git_theta.cli import whole_files
from git_theta.cli.exit_handling import complain, end_with
from git_theta.cli.post_index_change import write_deferred
from git_theta.cli.pre_push import before_push
from git_theta.cli.progress import Meter
from git_theta.commands.whole_files import in_index
from git_theta.git import Repository
from git_theta.git.staging import staged_paths
from git_theta.workspace import open_workspace


@click.group("hook", hidden=True)
def command() -> None:
    """Run the work of a Git hook.

    \b
    Example (what the hook script runs):
      git-theta hook pre-push origin URL < refs
    """


@command.command("pre-push")
@click.argument("remote")
@click.argument("url", required=False)
def pre_push(remote: str, url: str | None) -> None:
    """Upload the objects that the pushed commits need."""
    before_push(remote, url)


@command.command("pre-commit")
def pre_commit() -> None:
    """Refuse a commit that has tracked files whole, or as pointers of Git LFS.

    git theta install does not add this hook: it is for people who commit without git-theta (see
    the README).
    """
    with Repository.discover() as repo:
        staged = staged_paths(repo)
        whole = [file for file in in_index(repo) if file.path in staged]
        for line in whole_files.lines(repo, whole):
            complain(line)
    if whole:
        raise SystemExit(1)


@command.command("post-index-change")
@click.argument("flags", nargs=-1)
def post_index_change(flags: tuple[str, ...]) -> None:
    """Write the large checkpoints of a checkout."""
    write_deferred()


@command.command("prepare-commit-msg")
@click.argument("message", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1)
def prepare_commit_msg(message: Path, words: tuple[str, ...]) -> None:
    """Refuse a merge of adapters whose tensors and scales are of different sides."""
    from git_theta.merge.split_adapters import refuse_split  # 0.1 s that other hooks do not need

    with open_workspace(progress=Meter()) as workspace:
        end_with(refuse_split(workspace, message.read_text("utf-8", "replace")))
