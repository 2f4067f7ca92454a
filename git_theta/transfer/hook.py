"""Before a push: put on the remote what the pushed commits need, whatever the refs are called."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from git_theta.errors import GitError
from git_theta.git import Entry, Repository, pointer_refs, pointers
from git_theta.git.command import decode
from git_theta.git.remotes import Remote, find_remote, refs_of
from git_theta.transfer import records
from git_theta.transfer.doubts import last_seen, objects_in_doubt
from git_theta.transfer.needs import history_entries, needed_objects
from git_theta.transfer.upload import Uploaded, inspect, naming, put
from git_theta.workspace import Workspace

Warn = Callable[[str], None]

# The first name is what the user typed, such as `HEAD@{1 second ago}`; the others have no blanks.
_LINE = re.compile(r"(.+) ([0-9a-f]{40,64}) (\S+) ([0-9a-f]{40,64})")


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """A line of the pre-push hook: what a ref is here, and what it is on the remote."""

    local_ref: str
    local: str
    remote_ref: str
    remote: str

    @property
    def deletes(self) -> bool:
        """Return whether the ref goes away."""
        return not self.local.strip("0")

    @property
    def creates(self) -> bool:
        """Return whether there is no such ref on the remote yet."""
        return not self.remote.strip("0")

    @property
    def names_objects(self) -> bool:
        """Return whether it is one of our own refs, as `--mirror` pushes and deletes them."""
        return pointer_refs.is_pointer_ref(self.remote_ref)


def parse_updates(lines: str) -> list[RefUpdate]:
    """Return what the pre-push hook's standard input says (githooks(5)).

    Raises ``GitError`` for a line of another form: a push that is not understood is not let go on.
    """
    return [_parse(line) for line in lines.split("\n") if line]


def _parse(line: str) -> RefUpdate:
    match = _LINE.fullmatch(line)
    if match is None:
        raise GitError(
            f"the push has a ref that cannot be read: {line}", hint="push it by its name"
        )
    return RefUpdate(*match.groups())


def before_push(
    workspace: Workspace,
    name: str,
    url: str | None,
    updates: Sequence[RefUpdate],
    warn: Warn,
    mirrors: bool = False,
    others: Callable[[Entry], object] = lambda _: None,
) -> Uploaded:
    """Put every object that the pushed commits need on the remote.

    ``mirrors`` says that the push is one with `--mirror`, whose deletions git does not tell.
    ``others`` is told of files in these commits that are tracked and that are no manifests.

    What they need is computed from the manifests in the pushed range, so it does not matter how
    the commits were made. Raises ``TransferError``, ``MissingObjectError`` or
    ``CorruptObjectError``: the push must then not go on.
    """
    repo = workspace.repo
    remote = find_remote(repo, name, url)
    arriving, tips = _parted(repo, updates)
    there = _commits_there(repo, remote, updates) if tips else []
    entries = history_entries(repo, tips, there)
    needed = needed_objects(repo, entries, warn, workspace.store.size, others)
    followed = tips + [u.remote for u in updates if not u.creates]
    followed += [] if updates else last_seen(repo, name)
    doubtful = objects_in_doubt(workspace, remote, followed, needed)
    extra = {oid: size for oid, size in {**arriving, **doubtful}.items() if oid not in needed}

    unnamed = {**needed, **doubtful}
    unnamed = {oid: size for oid, size in unnamed.items() if oid not in arriving}
    leaving = {u.remote_ref for u in updates if u.names_objects and u.deletes}
    if mirrors or repo.config_value(f"remote.{name}.mirror") == "true":
        leaving |= _not_here(repo, remote)
    with naming(workspace, remote, unnamed, warn, leaving) as name_them:
        sent = put(workspace, remote, needed | _whole(workspace, extra))
        name_them()
    if followed:
        records.add(repo, remote, commits=followed, objects={**needed, **doubtful})
    return Uploaded(remote.title, sent, len(needed))


def _parted(repo: Repository, updates: Sequence[RefUpdate]) -> tuple[dict[str, int], list[str]]:
    """Return the objects (oid to bytes) that pushed refs of ours name, and all other tips.

    Not the name of a ref decides, but its content: a branch may be called as ours are.
    """
    named: dict[str, int] = {}
    tips: list[str] = []
    for update in updates:
        if update.deletes:
            continue
        found = pointers.read_commit(repo, update.local) if update.names_objects else None
        if found is None:
            tips.append(update.local)
        else:
            named.update(found)
    return named, tips


def _commits_there(repo: Repository, remote: Remote, updates: Sequence[RefUpdate]) -> list[str]:
    """Return what refs on the remote point to, as the remote says.

    Git has said it of the refs that are pushed. Others are asked for only where these say nothing.
    """
    told = [update.remote for update in updates if not update.creates]
    if len(told) == len(updates) and all(map(repo.has, told)):
        return told
    return [*told, *refs_of(repo, remote, "refs/heads/*", "refs/tags/*").values()]


def _not_here(repo: Repository, remote: Remote) -> set[str]:
    """Return the pointer refs of a remote that a push with `--mirror` deletes."""
    patterns = pointer_refs.PATTERNS
    here = decode(repo.git("for-each-ref", "--format=%(refname)", *patterns)).split()
    return set(refs_of(repo, remote, *patterns)) - set(here)


def _whole(workspace: Workspace, objects: dict[str, int]) -> dict[str, int]:
    """Return those that are neither damaged nor absent here: this push does not need them."""
    return {oid: objects[oid] for oid in inspect(workspace, objects).whole}
