"""``git theta hook NAME``: what our hooks run (githooks(5))."""

from __future__ import annotations

import sys

import click

from git_theta import transfer
from git_theta.cli import whole_files
from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.cli.push import tell_uploaded
from git_theta.commands.whole_files import in_index, in_range
from git_theta.core.system import ancestors
from git_theta.filters.deferred import checkout_deferred, take_deferred
from git_theta.git import Repository
from git_theta.git.command import decode
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
    updates = transfer.parse_updates(decode(sys.stdin.buffer.read()))
    with open_workspace(progress=Meter(), complain=complain) as workspace:
        options = (workspace, remote, url, updates, complain, _mirrors())
        uploaded = transfer.before_push(*options)
        whole = in_range(workspace.repo, *_pushed(workspace.repo, remote, updates))
        for line in whole_files.lines(workspace.repo, whole):
            complain(line)
    if uploaded.sent:
        tell_uploaded(uploaded, "git-theta: ")


def _mirrors() -> bool:
    """Tell whether a `git push --mirror` started us: git lists no deletions of such a push."""
    pushes = (words for words in ancestors() if "push" in words)
    return any(len(word) > 2 and "--mirror".startswith(word) for words in pushes for word in words)


def _pushed(
    repo: Repository, remote: str, updates: list[transfer.RefUpdate]
) -> tuple[list[str], list[str]]:
    """Return what is pushed, and what this repository knows to be there."""
    tips = [update.local for update in updates if not update.deletes]
    there = [update.remote for update in updates if repo.resolve(update.remote)]
    return tips, [*there, f"--remotes={remote}"] if repo.has_remote(remote) else there


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
    with open_workspace(progress=Meter()) as workspace:
        checkout_deferred(workspace, take_deferred(workspace))
