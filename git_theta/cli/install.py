"""``git theta install``."""

from __future__ import annotations

import click

from git_theta.cli.arguments import scope_options
from git_theta.cli.executable import executable
from git_theta.errors import NotARepositoryError, UntrustedRepositoryError
from git_theta.git import Repository, config, hooks
from git_theta.git.lfs import Lfs


@click.command("install")
@scope_options
def command(scope: config.Scope | None) -> None:
    """Set git-theta up for this user, and in this repository.

    Writes the filter and the merge driver to Git's configuration. Inside a repository, also adds
    the hooks; hooks that exist already are kept and run first. Names every file that it writes.

    \b
    Examples:
      git theta install
      git theta install --global    for this user; touches no repository
      git theta install --local     only in this repository
      git theta install --system    for every user of this machine
    """
    repo = repository_here(scope)
    where = scope or "global"
    git_dir = repo.git_dir if repo else None
    config.install(where, executable(), git_dir)
    file = config.file(where, git_dir)
    click.echo(f"The filter and the merge driver are configured ({where}): {file}")
    if repo:
        _add_hooks(repo)
    Lfs.require()
    held = repo is not None and any(repo.manifests(repo.index()))
    click.echo("Next: git theta checkout" if held else 'Next: git theta track "*.safetensors"')


def _add_hooks(repo: Repository) -> None:
    folder = repo.hooks_dir
    for name in hooks.install(repo, executable()):
        click.echo(f"Hook {name} is installed: {folder / name}")
        kept = folder / f"{name}{hooks.KEPT}"
        if kept.exists():
            click.echo(f"  yours is kept and runs first: {kept}")


def repository_here(scope: config.Scope | None) -> Repository | None:
    """Return the repository that a scope concerns: none for a user or a machine alone.

    Raises ``NotARepositoryError`` where ``--local`` finds none, and where git trusts none.
    """
    if scope in ("global", "system"):
        return None
    try:
        return Repository.discover()
    except UntrustedRepositoryError:
        raise
    except NotARepositoryError:
        if scope == "local":
            raise
        return None
