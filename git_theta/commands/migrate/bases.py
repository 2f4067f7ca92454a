"""The checkpoints that a version of a file is compared with: those of its commit's parents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from git_theta import manifest
from git_theta.checkpoint.parents import Parent
from git_theta.filters.parents import ParentCache
from git_theta.git import Entry, Repository


class ParentCheckpoints:
    """What the new parents of the commit at hand have, each manifest parsed once."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._cache = ParentCache(repo)
        self._commits: Sequence[str] = ()
        self._others: list[Entry] | None = None

    def move_to(self, commits: Sequence[str]) -> None:
        """Look into these commits from now on, the first parent first."""
        self._commits = commits
        self._others = None

    def of(self, path: str) -> Iterator[Parent]:
        """Yield the manifests at ``path`` in all parents, then every other one of the first.

        A checkpoint that was renamed, or split into other shards, is found by its tensors.
        """
        for commit in self._commits:
            text = self._repo.read_blob(f"{commit}:{path}")
            if (
                text is not None
                and manifest.is_manifest(text)
                and (one := self._cache.of_text(text))
            ):
                yield one
        for entry in self._in_first():
            if entry.path != path and (one := self._cache.of_blob(entry)):
                yield one

    def _in_first(self) -> list[Entry]:
        if self._others is None:
            files = self._repo.tree(self._commits[0]) if self._commits else []
            self._others = [entry for entry, _ in self._repo.manifests(files)]
        return self._others
