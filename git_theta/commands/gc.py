"""Removing local objects that nothing needs any more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from git_theta.commands.collection import remove, unused_since
from git_theta.git import reachable
from git_theta.transfer.needs import needed_objects, silent
from git_theta.workspace import Workspace

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collected:
    """Objects that no manifest needs (``oids``, ``size`` bytes) and how many are needed.

    ``shared`` are those that no clone has any more, in the shared store if there is one.
    """

    oids: tuple[str, ...]
    size: int
    kept: int
    shared: Mapping[str, int] = field(default_factory=dict)


def collect(workspace: Workspace, grace: float, *, dry_run: bool = False) -> Collected:
    """Remove objects that no manifest here names, unless they are younger than ``grace`` seconds.

    A manifest counts while git keeps it: in any ref, reflog, stash, index or operation under way,
    of every work tree. Nothing is rewritten, so what is pushed stays as it is. Other commands may
    run meanwhile, and lose nothing. Raises ``UnsupportedVersionError`` for a manifest of a newer
    version, since what it needs is not known; then nothing is removed.
    """
    candidates = unused_since(workspace, grace)
    needed = _needed(workspace, _LOG.warning)
    chosen = {oid: file for oid, file in candidates.items() if oid not in needed}
    gone = list(chosen) if dry_run else remove(workspace, chosen, lambda: _needed(workspace))
    kept = sum(workspace.store.has(oid) for oid in needed)
    shared = _collect_shared(workspace, grace, dry_run)
    return Collected(tuple(gone), sum(chosen[oid].st_size for oid in gone), kept, shared)


def _collect_shared(workspace: Workspace, grace: float, dry_run: bool) -> Mapping[str, int]:
    """Share what was stored before there was a shared store, and remove what no clone has there."""
    store = workspace.store
    if store.shared is None:
        return {}
    if not dry_run:
        store.trust(workspace.storage.index.stamps(store.oids()))
        store.share_all()
    return store.shared.collect(grace, dry_run=dry_run)


def _needed(workspace: Workspace, warn: Callable[[str], None] = silent) -> dict[str, int]:
    repo = workspace.repo
    return needed_objects(repo, reachable.all_entries(repo), warn)
