"""Removing local objects such that nothing that anybody needs meanwhile is lost.

Objects are moved to the trash first, from where whoever looks for them gets them back. Deleted is
what was neither used nor named since (docs/decisions/0011-collection.md).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Mapping
from contextlib import suppress

from git_theta.git import roots
from git_theta.store import activity
from git_theta.workspace import Workspace

Candidates = Mapping[str, os.stat_result]
"""Objects that may be removed, and their files when they were looked at."""


def unused_since(workspace: Workspace, grace: float) -> dict[str, os.stat_result]:
    """Return the objects that nobody has used for ``grace`` seconds, nor any process at work.

    What a killed collection left is among them. In the order of their names.
    """
    store, moment = workspace.store, _limit(workspace, grace)
    files = {oid: store.trash.stat(oid) for oid in sorted({*store.oids(), *store.trash.oids()})}
    return {oid: file for oid, file in files.items() if file and file.st_mtime_ns < moment}


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


def remove(
    workspace: Workspace, chosen: Candidates, needed: Callable[[], Container[str]]
) -> list[str]:
    """Remove objects that were neither used since nor are ``needed`` now; return which."""
    store, waiting = workspace.store, dict(chosen)
    gone = []
    try:
        for oid in chosen:
            store.trash.discard(oid)
        kept = needed()
        for oid, before in chosen.items():
            now = store.trash.stat(oid)
            if oid in kept or (now and now.st_mtime_ns != before.st_mtime_ns):
                store.trash.restore(oid)
            elif store.trash.destroy(oid):
                gone.append(oid)
            del waiting[oid]
    finally:
        for oid in waiting:  # something failed, or the user has had enough
            store.trash.restore(oid)
    store.release(gone)
    workspace.storage.index.forget(gone)
    return gone
