"""Removing local objects that a remote has, and that nothing here needs at the moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from git_theta.commands.collection import remove, unused_since
from git_theta.errors import UsageError
from git_theta.git import Entry, Repository, reachable, roots
from git_theta.git.command import decode
from git_theta.git.remotes import Remote, find_remote
from git_theta.transfer import records, remote_copies
from git_theta.transfer.needs import Warn, needed_objects, silent
from git_theta.workspace import Workspace

_DAY = 86400


@dataclass(frozen=True, slots=True)
class Pruned:
    """Objects that a remote has (``oids``, ``size`` bytes); ``unsafe`` others are only here.

    ``kept`` objects are needed here at the moment.
    """

    remote: str
    oids: tuple[str, ...]
    size: int
    unsafe: int
    kept: int


def prune(
    workspace: Workspace, name: str, recent: float, warn: Warn, *, verify: bool, dry_run: bool
) -> Pruned:
    """Remove objects that the remote ``name`` has, unless they are needed here.

    Needed is what HEAD or the index of a work tree names, an operation under way, a commit of the
    last ``recent`` days, and anything in refs, reflogs and the stash that is in no branch of the
    remote as last seen. With ``verify`` the remote is asked for each object. Without it nothing is
    removed: what it had when this repository last heard of it, the host may have deleted since.
    Other commands may run meanwhile, and lose nothing.
    """
    remote = _remote(workspace.repo, name)
    kept = _kept(workspace, name, recent, warn)
    unused = unused_since(workspace, 0)
    chosen = {oid: file for oid, file in unused.items() if oid not in kept}
    if verify:
        sizes = {oid: workspace.store.size(oid) or 0 for oid in chosen}
        there = remote_copies.verified(workspace, remote, sizes)
    else:
        there = chosen.keys() & records.load(workspace.repo, remote).objects
    safe = {oid: file for oid, file in chosen.items() if oid in there}
    gone = list(safe)
    if verify and not dry_run:
        gone = remove(workspace, safe, lambda: _kept(workspace, name, recent, silent))
    size = sum(safe[oid].st_size for oid in gone)
    here = sum(workspace.store.has(oid) for oid in kept)
    return Pruned(remote.title, tuple(gone), size, len(chosen) - len(safe), here)


def _remote(repo: Repository, name: str) -> Remote:
    if not repo.has_remote(name):
        raise UsageError(f"there is no remote called {name}", hint="git remote -v")
    return find_remote(repo, name)


def _kept(workspace: Workspace, name: str, recent: float, warn: Warn) -> dict[str, int]:
    repo = workspace.repo
    return needed_objects(repo, _entries(repo, name, recent), warn)


def _entries(repo: Repository, name: str, recent: float) -> Iterator[Entry]:
    yield from reachable.staged(repo)
    for folder in roots.git_dirs(repo.common_dir):
        head = "main-worktree" if folder == repo.common_dir else f"worktrees/{folder.name}"
        yield from repo.tree(f"{head}/HEAD")
    since = f"--max-age={max(0, int(time.time() - recent * _DAY))}"
    for commit in (
        *roots.held(repo.common_dir),
        *decode(repo.git("rev-list", "--all", since)).split(),
    ):
        yield from repo.tree(commit)
    yield from reachable.all_entries(repo, [f"--remotes={name}"])
