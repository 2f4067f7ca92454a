"""``git theta migrate``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.cli.text import human, printable
from git_theta.commands import migrate
from git_theta.commands.migrate import Outcome, Request
from git_theta.core import registry
from git_theta.core.messages import plural, short_id
from git_theta.git import config
from git_theta.workspace import open_workspace

_SHOWN = 10
_FEW = 5

_NEEDED = {
    "in git-theta": ", with git-theta installed",
    "in Git LFS": ", with Git LFS installed",
}
"""What a clone of the new history needs, by where its files are."""


@click.group("migrate")
def command() -> None:
    """Rewrite history from Git LFS or plain files to git-theta, or back.

    \b
    Examples:
      git theta migrate import --dry-run
      git theta migrate import
      git theta migrate export
      git theta migrate undo
    """


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add what import and export have in common."""
    for option in (
        click.argument("refs", nargs=-1, metavar="[REF]..."),
        click.option(
            "--map",
            "map_file",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Write the old and the new id of each commit to FILE.",
        ),
        click.option(
            "-n", "--dry-run", is_flag=True, help="Show what it would save; change nothing."
        ),
        click.option("--everything", is_flag=True, help="All branches and tags."),
        click.option(
            "-X", "--exclude", multiple=True, metavar="GLOB", help="Leave these paths as they are."
        ),
        click.option(
            "-I", "--include", multiple=True, metavar="GLOB", help="Take the paths that match."
        ),
    ):
        function = option(function)
    return function


@command.command("import")
@_options
def import_(**options: Any) -> None:
    """Let git-theta store the checkpoints of a history, which is rewritten.

    This rewrites the current branch, or each REF, a branch or tag. Files and LFS pointers whose
    path matches --include, a pattern as in .gitattributes, become manifests; by default those that
    are named like a checkpoint. Lines of .gitattributes are rewritten in each commit. Authors,
    dates and messages stay; signatures are lost.

    Every version is decoded again and compared before a branch moves. Missing LFS objects are
    fetched. An interrupted run continues where it stopped. The old history is kept: `git theta
    migrate undo` brings it back.

    \b
    Examples:
      git theta migrate import --dry-run
      git theta migrate import
      git theta migrate import --everything --include "*.safetensors" --exclude "tests/**"
    """
    request = _request(options, _checkpoint_names())
    with open_workspace(progress=Meter(), complain=complain) as workspace:
        config.require_filter(workspace.repo.git_dir)
        outcome = migrate.run_import(workspace, request, complain)
        _tell(outcome, request, "in git-theta", workspace.repo.remotes())


@command.command("export")
@_options
@click.option("--plain", is_flag=True, help="To files in Git itself instead of Git LFS.")
def export(plain: bool, **options: Any) -> None:
    """Let Git LFS store the checkpoints of a history again, which is rewritten.

    This is the opposite of import, with the same guarantees: what was imported from Git LFS comes
    back as the same commits. Objects are put into git-lfs's storage, from where `git push` uploads
    them.

    \b
    Examples:
      git theta migrate export
      git theta migrate export --plain v1.0
    """
    request = _request(options, ("*",), plain=plain)
    with open_workspace(progress=Meter(), complain=complain) as workspace:
        outcome = migrate.run_export(workspace, request, complain)
        where = "in Git" if plain else "in Git LFS"
        _tell(outcome, request, where, workspace.repo.remotes())


@command.command("undo")
def undo() -> None:
    """Give branches and tags back the history that they had before the last migration.

    Refuses if a branch has moved since: its new commits would be lost.

    \b
    Example:
      git theta migrate undo
    """
    with open_workspace(progress=Meter(), complain=complain) as workspace:
        number, moved = migrate.undo(workspace)
    click.echo(f"Undid migration {number}:")
    _tell_refs(moved)


def _request(options: dict[str, Any], default: tuple[str, ...], plain: bool = False) -> Request:
    return Request(**{**options, "include": options["include"] or default, "plain": plain})


def _checkpoint_names() -> tuple[str, ...]:
    formats = map(registry.format_named, registry.names("formats"))
    return tuple(f"*{suffix}" for form in formats for suffix in form.suffixes)


def _tell(outcome: Outcome, request: Request, where: str, remotes: Sequence[str]) -> None:
    if not outcome.versions and not outcome.moved:
        click.echo("Nothing to migrate: no file in this history matches")
        return
    share = f" ({outcome.after / outcome.before:.2f}x)" if outcome.before else ""
    click.echo(
        f"{plural(outcome.versions, 'version')}: {human(outcome.before)} now, "
        f"{human(outcome.after)} {where}{share}"
    )
    if request.dry_run:
        click.echo("Nothing was changed (--dry-run)")
        return
    click.echo(f"Rewrote {plural(outcome.commits, 'commit')}:")
    _tell_refs(outcome.moved)
    if outcome.signatures:
        click.echo(f"Dropped {plural(outcome.signatures, 'signature')}: what they signed is gone")
    if outcome.left:
        names = printable(", ".join(map(_short, outcome.left[:_SHOWN])))
        click.echo(f"Not rewritten: {names} (--everything includes all branches and tags)")
    click.echo(f"Old and new commits: {outcome.map_file}")
    click.echo("To undo: git theta migrate undo")
    if remotes:
        _tell_next(outcome, remotes[0], _NEEDED.get(where, ""))


def _tell_next(outcome: Outcome, remote: str, needed: str) -> None:
    names = [_short(name) for name in outcome.moved]
    to, refs = printable(shlex.quote(remote)), printable(" ".join(map(shlex.quote, names)))
    if len(names) > _FEW:
        refs = f"--all && git push --force {to} --tags"
    click.echo(f"To publish: git push --force-with-lease {to} {refs}")
    branch = next((name for name in names if not name.startswith("tags/")), "BRANCH")
    here, there = printable(shlex.quote(branch)), printable(shlex.quote(f"{remote}/{branch}"))
    click.echo(
        f"In other clones of the old history{needed}: git fetch, then\n"
        f"  git switch {here} && git reset --hard {there}\n"
        f"  for unpushed commits: git rebase --onto {there} OLD-COMMIT THEIR-BRANCH"
    )


def _tell_refs(moved: Any) -> None:
    for name, (old, new) in list(moved.items())[:_SHOWN]:
        click.echo(f"  {printable(_short(name))}: {short_id(old)} -> {short_id(new)}")
    if len(moved) > _SHOWN:
        click.echo(f"  and {len(moved) - _SHOWN:,} more")


def _short(name: str) -> str:
    return name.removeprefix("refs/heads/").removeprefix("refs/")
