"""``git theta uninstall``."""

from __future__ import annotations

import click

from git_theta.cli.arguments import scope_options
from git_theta.cli.install import repository_here
from git_theta.git import config, hooks


@click.command("uninstall")
@scope_options
def command(scope: config.Scope | None) -> None:
    """Undo `git theta install`.

    Tracked paths, objects and history stay as they are: install again to work with them. Hooks
    that existed before are restored.

    \b
    Examples:
      git theta uninstall
      git theta uninstall --global    for this user; touches no repository
      git theta uninstall --local
    """
    repo = repository_here(scope)
    where = scope or "global"
    config.uninstall(where, repo.git_dir if repo else None)
    click.echo(f"The filter and the merge driver are no longer configured ({where}).")
    folder = repo.hooks_dir if repo else None
    for name in hooks.uninstall(repo) if repo else ():
        click.echo(f"Hook {name} is removed from {folder}")
