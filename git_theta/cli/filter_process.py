"""``git theta filter-process``: the long-running filter that git starts (gitattributes(5))."""

from __future__ import annotations

import gc
import sys

import click

from git_theta.cli.executable import executable
from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.core.system import ancestors
from git_theta.errors import ThetaError
from git_theta.filters.session import Session
from git_theta.filters.unconverted import renormalizes
from git_theta.git import hooks
from git_theta.git.config import DIFF_DRIVER
from git_theta.git.filter_server import serve
from git_theta.git.operation import merges_text, running_command, shows_differences
from git_theta.workspace import Workspace, open_workspace

_COMPARING = ("status", "diff", "diff-files", "describe")


@click.command("filter-process", hidden=True)
def command() -> None:
    """Clean and smudge files for git, which starts this as `filter.theta.process`.

    \b
    Example (what git itself runs):
      git-theta filter-process
    """
    # A manifest of 90,000 tensors is a million objects that live as long as it does; collecting
    # among them every 700 allocations took a third of the time of reading it.
    gc.set_threshold(100_000)
    with open_workspace(progress=Meter(), complain=complain) as workspace:
        can_defer = not _lacking_hooks(workspace)
        above = list(ancestors())
        session = Session(
            workspace,
            complain,
            can_defer,
            as_text=merges_text(above),
            for_drivers=shows_differences(above)
            and workspace.repo.config_value(DIFF_DRIVER) is not None,
            renormalizes=renormalizes(above),
            only_compares=running_command(above) in _COMPARING,
        )
        serve(sys.stdin.buffer, sys.stdout.buffer, session, _report)


def _report(path: str, error: ThetaError) -> None:
    complain(error.at(path))


def _lacking_hooks(workspace: Workspace) -> list[str]:
    """Install missing hooks, and return what is missing still.

    A fresh clone must not push manifests without their objects.
    """
    lacking = hooks.missing(workspace.repo)
    if not lacking or not workspace.storage.settings.auto_hooks:
        return lacking
    try:
        hooks.install_missing(workspace.repo, executable())
    except ThetaError as error:
        complain(error)  # the file at hand can be filtered all the same
    return hooks.missing(workspace.repo)
