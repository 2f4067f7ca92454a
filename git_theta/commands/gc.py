"""Removing local objects that nothing needs any more."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from git_theta.git import reachable, roots
from git_theta.store import activity
from git_theta.transfer.needs import needed_objects, silent
from git_theta.workspace import Workspace

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Collected:
    """Objects that no manifest needs (``oids``, ``size`` bytes) and how many are needed."""

    oids: tuple[str, ...]
    size: int
    kept: int


def collect(workspace: Workspace, grace: float, *, dry_run: bool = False) -> Collected:
    """Remove objects that no manifest here names, unless they are younger than ``grace`` seconds.

    A manifest counts while git keeps it: in any ref, reflog, stash, index or operation under way,
    of every work tree. Nothing is rewritten, so what is pushed stays as it is. Other commands may
    run meanwhile, and lose nothing: what a process at work has stored or used stays, and objects
    are moved to the trash first, from where who looks for them gets them back, and deleted when
    another look has shown that they were neither used nor named since. Raises
    ``UnsupportedVersionError`` for a manifest of a newer version, since what it needs is not
    known; then nothing is removed.
    """
    store = workspace.store
    candidates = _older(workspace, _limit(workspace, grace))
    needed = _needed(workspace, _LOG.warning)
    unneeded = [oid for oid in candidates if oid not in needed]
    chosen = {oid: candidates[oid] for oid in unneeded}
    gone = unneeded if dry_run else _remove(workspace, chosen)
    kept = sum(store.has(oid) for oid in needed)
    return Collected(tuple(gone), sum(candidates[oid].st_size for oid in gone), kept)


def _limit(workspace: Workspace, grace: float) -> int:
    """Return the moment (ns) before which an object must have been used last to be removed.

    Git's index names what a merge driver stored only when the whole merge is done; its lock
    shows when that began.
    """
    moments = [time.time_ns() - int(grace * 1e9)]
    if (begun := activity.oldest(workspace.store.root)) is not None:
        moments.append(begun)
    for file in roots.indexes(workspace.repo.common_dir):
        with suppress(FileNotFoundError):
            moments.append(file.stat().st_mtime_ns)
    return min(moments)


def _older(workspace: Workspace, moment: int) -> dict[str, os.stat_result]:
    """Objects last used before ``moment``, with when that was; also what a killed collection left.

    In the order of their names.
    """
    store = workspace.store
    files = {oid: store.trash.stat(oid) for oid in sorted({*store.oids(), *store.trash.oids()})}
    return {oid: file for oid, file in files.items() if file and file.st_mtime_ns < moment}


def _needed(workspace: Workspace, warn: Callable[[str], None] = silent) -> dict[str, int]:
    repo = workspace.repo
    return needed_objects(repo, reachable.all_entries(repo), warn)


def _remove(workspace: Workspace, unneeded: dict[str, os.stat_result]) -> list[str]:
    store, waiting = workspace.store, dict(unneeded)
    try:
        for oid in unneeded:
            store.trash.discard(oid)
        needed = _needed(workspace)
        gone = []
        for oid, before in unneeded.items():
            now = store.trash.stat(oid)
            if oid in needed or (now and now.st_mtime_ns != before.st_mtime_ns):
                store.trash.restore(oid)
            elif store.trash.destroy(oid):
                gone.append(oid)
            del waiting[oid]
    finally:
        for oid in waiting:  # something failed, or the user has had enough
            store.trash.restore(oid)
    workspace.storage.index.forget(gone)
    return gone
