"""``git theta checkout``."""

from __future__ import annotations

import shlex

import click

from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.cli.text import printable
from git_theta.core.messages import as_typed, plural
from git_theta.errors import UsageError
from git_theta.filters.deferred import checkout_deferred
from git_theta.git import Repository, config, revisions
from git_theta.git.worktree import require_work_tree
from git_theta.workspace import open_workspace


@click.command("checkout")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
def command(paths: tuple[str, ...]) -> None:
    """Replace manifests in the work tree by their checkpoints.

    PATH is a checkpoint or a folder; without one, all of them. Files that are not manifests are
    left alone.

    \b
    Examples:
      git theta checkout
      git theta checkout model.safetensors
    """
    with open_workspace(progress=Meter(), complain=complain) as workspace:
        repo = workspace.repo
        require_work_tree(repo, "checkout")
        config.require_filter(repo.git_dir)
        tracked = dict.fromkeys(entry.path for entry, _ in repo.manifests(repo.index()))
        chosen = [name for path in paths for name in _below(repo, tracked, path)] or list(tracked)
        done = checkout_deferred(workspace, chosen)
    for name in done:
        click.echo(f"Restored {printable(name)}")
    if not done:
        count = plural(len(chosen), "checkpoint")
        click.echo(f"Nothing to restore: {count}, no manifest", err=True)


def _below(repo: Repository, tracked: dict[str, None], path: str) -> list[str]:
    """Return the checkpoints at or below ``path``.

    ``UsageError`` where nothing could be done there.
    """
    inside = revisions.path_in(repo, path)
    found = [name for name in tracked if inside in (".", name) or name.startswith(f"{inside}/")]
    if inside in found and not (repo.top / inside).exists():
        hint = f"git checkout -- {as_typed(path)}"
        raise UsageError("the file is gone", path=path, hint=hint)
    if found:
        return found
    if revisions.is_revision(repo, path):
        hint = f"git checkout {shlex.quote(path)} switches to a commit; this command takes paths"
    else:
        hint = "git theta ls-files lists the checkpoints"
    raise UsageError("not a checkpoint in the index", path=path, hint=hint)
