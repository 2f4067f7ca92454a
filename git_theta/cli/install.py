"""``git theta install``."""

from __future__ import annotations

import click

from git_theta.cli.executable import executable
from git_theta.cli.scope import scope_options
from git_theta.errors import NotARepositoryError
from git_theta.git import Repository, config, hooks
from git_theta.git.lfs import Lfs


@click.command("install")
@scope_options
def command(scope: config.Scope) -> None:
    """Set git-theta up for this user, and in this repository.

    Writes the filter and the merge driver to Git's configuration. Inside a repository, also adds
    the hooks; hooks that exist already are kept and run first.

    \b
    Examples:
      git theta install
      git theta install --local     only in this repository
      git theta install --system    for every user of this machine
    """
    repo = repository_here()
    if scope == "local" and repo is None:
        raise NotARepositoryError("not inside a Git repository", hint="git init")
    config.install(scope, executable(), repo.git_dir if repo else None)
    click.echo(f"The filter and the merge driver are configured ({scope}).")
    for name in hooks.install(repo, executable()) if repo else ():
        click.echo(f"Hook {name} is installed.")
    Lfs.require()
    click.echo('Next: git theta track "*.safetensors"')


def repository_here() -> Repository | None:
    """The repository around the current folder, if there is one."""
    try:
        return Repository.discover()
    except NotARepositoryError:
        return None
