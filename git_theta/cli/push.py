"""``git theta push``."""

from __future__ import annotations

import click

from git_theta import transfer
from git_theta.cli.exit_handling import complain
from git_theta.cli.progress import Meter
from git_theta.cli.text import uploaded_line
from git_theta.core.messages import plural
from git_theta.errors import UsageError
from git_theta.git import Repository
from git_theta.git.command import decode
from git_theta.transfer.doubts import last_seen
from git_theta.workspace import open_workspace


@click.command("push")
@click.argument("remote", required=False)
@click.argument("refs", nargs=-1, metavar="[REF]...")
@click.option(
    "--all", "everything", is_flag=True, help="Push for every branch and tag, also REMOTE's."
)
def command(remote: str | None, refs: tuple[str, ...], everything: bool) -> None:
    """Upload the objects that the history of REF needs (of HEAD by default) to REMOTE.

    `git push` does this by itself for the commits that it pushes. Use this command after a push
    with --no-verify, for a mirror, or when somebody is missing objects. No ref is moved; the remote
    is asked which objects it has, and gets the rest.

    \b
    Examples:
      git theta push
      git theta push origin main v1.0
      git theta push --all backup
    """
    if everything and refs:
        raise UsageError("--all takes no REF", hint="git theta push --all origin")
    with open_workspace(progress=Meter()) as workspace:
        repo = workspace.repo
        name = remote or default_remote(repo)
        tips = _all(repo, name) if everything else _resolved(repo, refs or ("HEAD",))
        uploaded = transfer.push(workspace, name, tips, complain)
    _tell(uploaded)


def _tell(uploaded: transfer.Uploaded) -> None:
    """Say what was sent."""
    sent = uploaded.sent.values()
    if sent:
        click.echo(uploaded_line(len(sent), sum(sent), uploaded.remote))
    else:
        count = plural(uploaded.needed, "object")
        click.echo(f"Nothing to upload: {uploaded.remote} has all of {count}")


def default_remote(repo: Repository) -> str:
    """Return the remote that is meant where none is named."""
    names = repo.remotes()
    if not names:
        raise UsageError("there is no remote", hint="git remote add origin URL")
    return names[0]


def _all(repo: Repository, remote: str) -> list[str]:
    """Return all branches and tags, HEAD, and what the remote has: it may lack objects of that."""
    listed = ("for-each-ref", "--format=%(objectname)", "refs/heads/", "refs/tags/")
    head = repo.resolve("HEAD")
    here = [*decode(repo.git(*listed)).split(), *([head] if head else [])]
    return here + last_seen(repo, remote)


def _resolved(repo: Repository, refs: tuple[str, ...]) -> list[str]:
    found = [repo.resolve(ref) for ref in refs]
    for ref, id_ in zip(refs, found, strict=True):
        if id_ is None:
            raise UsageError(f"{ref}: no such revision", hint="git log --all --oneline")
    return [id_ for id_ in found if id_]
