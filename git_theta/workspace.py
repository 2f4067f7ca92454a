"""A repository opened for work: its objects, its index and its settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from git_theta import settings
from git_theta.checkpoint import Workshop
from git_theta.errors import SettingsError
from git_theta.git import TEAM_FILE, Repository
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
    start: Path | None = None,
    progress: Progress | None = None,
    complain: Callable[[str], None] | None = None,
) -> Iterator[Workspace]:
    """Open the repository around ``start`` (the current folder).

    Raises ``NotARepositoryError`` or ``SettingsError``. What only reads and writes files gives
    ``complain``: it is told of what is wrong in ``.theta.toml``, which comes with any commit and
    must not be in the way of checking out another one; its settings do not count then.
    """
    repo = Repository.discover(start)
    chosen = _settings(repo, complain)
    index = Index(repo.theta_dir)
    try:
        store = ObjectStore(repo.theta_dir)
        yield Workspace(repo, Workshop(store, index, chosen, progress or Silent()))
    finally:
        index.close()
        repo.close()


def _settings(repo: Repository, complain: Callable[[str], None] | None) -> settings.Settings:
    try:
        return settings.load(repo.config(), repo.team_settings(), os.environ)
    except SettingsError as error:
        if complain is None:
            raise
        chosen = settings.load(repo.config(), {}, os.environ)
        complain(f"{error.at(TEAM_FILE)}\n  its settings do not count until it is mended")
        return chosen
