"""A repository opened for work: its objects, its index and its settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from git_theta import settings
from git_theta.checkpoint import Workshop
from git_theta.git import Repository
from git_theta.progress import Progress, Silent
from git_theta.store import Index, ObjectStore


@dataclass(frozen=True, slots=True)
class Workspace:
    """A repository and the workshop in its common git directory."""

    repo: Repository
    workshop: Workshop

    @property
    def store(self) -> ObjectStore:
        """The local objects."""
        return self.workshop.store


@contextmanager
def open_workspace(
    start: Path | None = None, progress: Progress | None = None
) -> Iterator[Workspace]:
    """Open the repository around ``start`` (the current folder).

    Raises ``NotARepositoryError`` or ``SettingsError``.
    """
    repo = Repository.discover(start)
    chosen = settings.load(repo.config(), repo.team_settings(), os.environ)
    index = Index(repo.theta_dir)
    try:
        store = ObjectStore(repo.theta_dir)
        yield Workspace(repo, Workshop(store, index, chosen, progress or Silent()))
    finally:
        index.close()
        repo.close()
