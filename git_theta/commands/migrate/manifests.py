"""The manifests that an export converts, and their objects, fetched before it begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from git_theta import transfer
from git_theta.core.messages import plural, short_id, some_ids
from git_theta.errors import MissingObjectError, ThetaError
from git_theta.git.path_globs import PathGlobs
from git_theta.transfer.needs import history_entries
from git_theta.workspace import Workspace


@dataclass(slots=True)
class Found:
    """Manifests of a history: by the blob of each, its path and commit and the objects it needs.

    ``objects`` are those of all (oid to bytes); ``size`` is the bytes of the files together.
    """

    places: dict[str, str] = field(default_factory=dict)
    needs: dict[str, frozenset[str]] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    size: int = 0

    def fetch(self, workspace: Workspace) -> None:
        """Bring the missing objects here. Raises ``MissingObjectError`` naming path and commit."""
        try:
            transfer.fetch(workspace, self.objects)
        except ThetaError as error:
            absent = sorted(oid for oid in self.objects if not workspace.store.has(oid))
            place = next((self.places[b] for b, oids in self.needs.items() if oids & {*absent}), "")
            raise MissingObjectError(
                f"{plural(len(absent), 'object')} cannot be fetched: {some_ids(absent)}; "
                "nothing was changed",
                path=place,
                details=[error.message],
                hint=error.hint,
            ) from error


def to_export(
    workspace: Workspace, tips: Sequence[str], globs: PathGlobs, warn: Callable[[str], None]
) -> Found:
    """Return the manifests in the history of ``tips`` that the filter tracks and globs take."""
    found = Found()
    chosen = (e for e in history_entries(workspace.repo, tips) if globs.included(e.path))
    for entry, manifest in transfer.read_manifests(workspace.repo, chosen, warn):
        objects = manifest.objects()
        found.places[entry.blob] = f"{entry.path} (commit {short_id(entry.commit or '')})"
        found.needs[entry.blob] = frozenset(objects)
        found.objects.update(objects)
        found.size += manifest.size
    return found
