"""Removing local objects that nothing needs any more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from git_theta import transfer
from git_theta.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Collected:
    """Objects that no manifest needs (``oids``, ``size`` bytes) and how many are needed."""

    oids: tuple[str, ...]
    size: int
    kept: int


def collect(workspace: Workspace, grace: float, *, dry_run: bool = False) -> Collected:
    """Remove objects that no manifest here names, unless they are younger than ``grace`` seconds.

    A manifest counts while git keeps it: in any ref, reflog, stash, index or operation under way.
    Nothing is rewritten, so what is pushed stays as it is. Objects of a ``git add`` that is just
    running have no manifest yet; ``grace`` is for them. Raises ``ManifestError`` when a manifest
    cannot be read: what it needs is not known then, so nothing is removed.
    """
    repo, store = workspace.repo, workspace.store
    # Listed first: what is stored from here on is not looked at.
    candidates = list(_older(workspace, time.time() - grace))
    needed = transfer.needed_objects(repo, repo.all_entries())
    oids = tuple(oid for oid in candidates if oid not in needed)
    size = sum(store.size(oid) or 0 for oid in oids)
    if not dry_run:
        # First the index, so that nobody builds on an object that is about to go.
        workspace.storage.index.forget(oids)
        for oid in oids:
            store.remove(oid)
    return Collected(oids, size, sum(store.has(oid) for oid in needed))


def _older(workspace: Workspace, moment: float) -> Iterator[str]:
    for oid in workspace.store.oids():
        try:
            if workspace.store.path(oid).stat().st_mtime < moment:
                yield oid
        except FileNotFoundError:
            continue  # another process was quicker
