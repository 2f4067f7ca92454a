"""``git theta resolve``."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any

import click

from git_theta.cli.merge_options import request_of, strategy_options
from git_theta.cli.plan_view import plan_lines, warn_of_unmatched
from git_theta.cli.progress import Meter
from git_theta.cli.text import printable
from git_theta.core.models import INDEX, in_one_file
from git_theta.errors import UsageError
from git_theta.git import Repository, config, revisions
from git_theta.git.config import MERGETOOL
from git_theta.git.tracked import TrackedPaths
from git_theta.merge.planning.actions import Plan
from git_theta.merge.planning.summary import summarise
from git_theta.merge.resolve import resolve
from git_theta.workspace import open_workspace

_NO_BACKUPS = "delete it before git add, or: git config mergetool.keepBackup false"


@click.command("resolve")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@strategy_options
@click.option("-i", "--interactive", is_flag=True, help="Ask for each kind of tensor.")
def command(
    paths: tuple[str, ...],
    interactive: bool,
    **options: Any,
) -> None:
    """Resolve checkpoints that a merge left in conflict.

    Tensors that only one side changed are taken from it; the strategy merges those that both
    changed (git theta strategies lists strategies). The result is staged. A folder stands for all
    checkpoints in it. --interactive asks for each kind of tensor, and shows how far and in which
    direction each side moved it.

    \b
    Examples:
      git theta resolve model.safetensors --strategy ties -p density=0.3
      git theta resolve model.safetensors --strategy take -p side=theirs
      git theta resolve model.safetensors --rule '*.bias=take:side=ours' --strategy average
      git theta resolve model.safetensors --interactive
      git theta resolve folder --strategy average
    """
    request = request_of(**options)
    with open_workspace(progress=Meter()) as workspace:
        config.require_filter(workspace.repo.git_dir)
        ask = None
        if interactive:
            from git_theta.cli.interactive import asker

            ask = asker(workspace)
        plans: list[Plan] = []
        for inside in _in_conflict(workspace.repo, paths):
            resolved = resolve(workspace, inside, request, ask)
            summary = summarise(resolved.plan, workspace.storage.settings.device)
            for line in [*plan_lines(summary), *resolved.notes]:
                click.echo(printable(line))
            plans.append(resolved.plan)
            click.echo(f"Resolved and staged {printable(inside)}")
            if MERGETOOL in os.environ and _keeps_backups(workspace.repo):
                click.echo(f"{printable(inside)}.orig is git's copy; {_NO_BACKUPS}", err=True)
        warn_of_unmatched(request, plans)


def _keeps_backups(repo: Repository) -> bool:
    """Return whether `git mergetool` leaves a copy of the file that was in conflict."""
    return repo.config_value("mergetool.keepBackup") not in ("false", "no", "off", "0")


def _in_conflict(repo: Repository, paths: Sequence[str]) -> list[str]:
    """Return those of several paths (``*.safetensors`` in a shell) that are in conflict.

    A folder stands for the checkpoints in it, and the name of a model for its files. All paths are
    returned where none is in conflict: the first then says so. Raises ``UsageError`` for one that
    is not in the index.
    """
    index = repo.index()
    known = {entry.path for entry in index}
    contested = sorted({entry.path for entry in index if entry.stage})
    found: dict[str, None] = {}
    for path in paths:
        inside = revisions.path_in(repo, path)
        is_file = inside in known and not inside.endswith(INDEX)
        below = [inside] if is_file else _below(repo, inside, known)
        if not below:
            hint = "git theta status lists what is in conflict"
            raise UsageError(f"{path}: no such file in the index", hint=hint)
        found |= dict.fromkeys(below)
    return [path for path in found if path in contested] or list(found)


def _below(repo: Repository, inside: str, known: Collection[str]) -> list[str]:
    """Return the checkpoints of the index in a folder, or of a model in several files."""
    folder = "" if inside in ("", ".") else f"{inside}/"
    model = inside.removesuffix(INDEX)
    named = [path for path in known if path.startswith(folder) or in_one_file(path) == model]
    with TrackedPaths(repo) as tracked:
        return sorted(path for path in named if tracked.covers_now(path))
