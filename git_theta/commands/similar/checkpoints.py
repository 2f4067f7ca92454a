"""A checkpoint in several revisions, by the ids of the blobs that say what it is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from git_theta import manifest, transfer
from git_theta.adapters import parse_fields
from git_theta.commands.similar.vectors import Changes, Version, changes_of
from git_theta.errors import ThetaError, naming
from git_theta.git import Repository
from git_theta.merge.planning.sources import config_path
from git_theta.workspace import Workspace

Key = tuple[str, ...]


class Checkpoint:
    """One checkpoint in all revisions."""

    def __init__(self, repo: Repository, path: str, base: str | None) -> None:
        self.path = path
        self._repo = repo
        self.version = lru_cache(maxsize=4)(self._parse)
        self._base = self.key(base) if base else ("", "")

    def key(self, commit: str) -> Key:
        """Return the ids of the blobs that say what the checkpoint is: manifest, configuration."""
        places = (self.path, config_path(self.path))
        return tuple(self._repo.identify(f"{commit}:{place}") or "" for place in places)

    def is_base(self, key: Key) -> bool:
        """Tell whether there are no changes, as the base is the same, or nothing is there."""
        return key == self._base or not key[0]

    def content(self, key: Key) -> Key:
        """Return what a sketch depends on."""
        return (self.path, *self._base, *key)

    def changes(self, key: Key) -> Changes:
        """Return what the checkpoint of these blobs added to the base."""
        return changes_of(self.version(self._base), self.version(key))

    def _parse(self, key: Key) -> Version:
        text, fields = (self._repo.read_blob(blob) if blob else None for blob in key)
        if not text or not manifest.is_manifest(text):
            return Version(None)
        with naming(self.path):
            described = manifest.parse(text)
        try:
            return Version(described, parse_fields(fields) if fields else None)
        except ThetaError:  # then it is compared as any tensors
            return Version(described)


def fetch(workspace: Workspace, changes: Sequence[Changes]) -> None:
    """Bring the objects that reading ``changes`` needs."""
    chunks = {chunk for each in changes for chunk in each.chunks()}
    transfer.fetch(workspace, {ref.oid: ref.size for chunk in chunks for ref in chunk.chain})
    workspace.storage.charge(chunks)
