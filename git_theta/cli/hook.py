"""``git theta hook NAME``: what our hooks run (githooks(5))."""

from __future__ import annotations

import sys

import click

from git_theta import transfer
from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.cli.push import tell_uploaded
from git_theta.core.system import ancestors
from git_theta.filters.deferred import checkout_deferred, stubs, take_deferred
from git_theta.git.command import decode
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
    if uploaded.sent:
        tell_uploaded(uploaded, "git-theta: ")


def _mirrors() -> bool:
    """Tell whether a `git push --mirror` started us: git lists no deletions of such a push."""
    pushes = (words for words in ancestors() if "push" in words)
    return any(len(word) > 2 and "--mirror".startswith(word) for words in pushes for word in words)


@command.command("post-index-change")
@click.argument("flags", nargs=-1)
def post_index_change(flags: tuple[str, ...]) -> None:
    """Write the large checkpoints of a checkout."""
    with open_workspace(progress=Meter()) as workspace:
        paths = take_deferred(workspace)
        checkout_deferred(workspace, stubs(workspace, paths))
