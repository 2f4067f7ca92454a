"""The process of the filter, for which Git waits: it starts and ends as fast as it can."""

from __future__ import annotations

import importlib
import sys
import threading
from typing import NoReturn

from git_theta.cli.exit_handling import complain, run_and_leave
from git_theta.cli.progress import Meter
from git_theta.core.system import ancestors
from git_theta.errors import ThetaError
from git_theta.git import hooks
from git_theta.git.config import DIFF_DRIVER
from git_theta.git.filter_server import serve
from git_theta.git.operation import merges_text, running_command, shows_differences
from git_theta.workspace import Workspace, open_workspace

_COMPARING = ("status", "diff", "diff-files", "describe")
_DECODING = (
    "checkout",
    "switch",
    "restore",
    "reset",
    "pull",
    "merge",
    "rebase",
    "worktree",
)


def run_filter() -> NoReturn:
    """Serve Git and exit."""
    run_and_leave(serve_git)


def serve_git() -> None:
    """Clean and smudge files until Git hangs up."""
    above = list(ancestors())
    command = running_command(above)
    # Meanwhile git is asked where we are, what is configured and which hooks there are: 10 ms.
    threading.Thread(target=_import_for, args=[command]).start()
    with open_workspace(progress=Meter(), complain=complain, read_settings_once=True) as workspace:
        workspace.storage.index.gather()
        can_defer = not _lacking_hooks(workspace)

        from git_theta.filters.session import Session
        from git_theta.filters.unconverted import renormalizes

        session = Session(
            workspace,
            complain,
            can_defer,
            as_text=merges_text(above),
            for_drivers=shows_differences(above)
            and workspace.repo.config_value(DIFF_DRIVER) is not None,
            renormalizes=renormalizes(above),
            only_compares=command in _COMPARING,
        )
        serve(sys.stdin.buffer, sys.stdout.buffer, session, _report)
        session.settle()  # git waits for us to end


def _import_for(command: str | None) -> None:
    importlib.import_module("git_theta.filters.session")
    if command == "clone":
        # What decodes is imported when the download has begun, which would have to wait for it.
        importlib.import_module("git_theta.transfer")
    elif command in _DECODING:
        # With numpy: begun before git asks for it. Others seldom need that, and import it then.
        importlib.import_module("git_theta.checkpoint.smudge")


def _report(path: str, error: ThetaError) -> None:
    complain(error.at(path))


def _lacking_hooks(workspace: Workspace) -> list[str]:
    """Install missing hooks, and return what is missing still.

    A fresh clone must not push manifests without their objects.
    """
    lacking = hooks.missing(workspace.repo)
    if not lacking or not workspace.storage.settings.auto_hooks:
        return lacking
    from git_theta.cli.executable import executable

    try:
        hooks.install_missing(workspace.repo, executable())
    except ThetaError as error:
        complain(error)  # the file at hand can be filtered all the same
    return hooks.missing(workspace.repo)
