"""A repository opened for work: its objects, its index and its settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from git_theta.checkpoint.context import StorageContext
from git_theta.core import settings
from git_theta.core.progress import NullProgress, Progress
from git_theta.core.sharing import share
from git_theta.errors import SettingsError, ThetaError
from git_theta.git import Repository
from git_theta.store import Index, ObjectStore, SharedStore


@dataclass(frozen=True, slots=True)
class Workspace:
    """A repository and the storage in its common git directory."""

    repo: Repository
    storage: StorageContext

    @property
    def store(self) -> ObjectStore:
        """The local objects."""
        return self.storage.store


@contextmanager
def open_workspace(
    start: Path | None = None,
    progress: Progress | None = None,
    complain: Callable[[ThetaError], None] | None = None,
    read_settings_once: bool = False,
) -> Iterator[Workspace]:
    """Open the repository around ``start`` (the current folder).

    Raises ``NotARepositoryError`` or ``SettingsError``. What is wrong in ``.theta.toml`` is told to
    ``complain`` alone, and its settings do not count then: the file comes with any commit and must
    not be in the way of checking out another one. Merging, which needs its rules, reads it anew.
    With ``read_settings_once`` git is asked for all settings now, and for none later.
    """
    repo = Repository.discover(start)
    if read_settings_once:
        repo.read_settings_once()
    # One program for both: each takes 3 ms.
    config = repo.config_of("theta", "core")
    chosen = _settings(repo, config, complain)
    share(repo.theta_dir, config.get("core.sharedrepository"))
    index = Index(repo.theta_dir)
    store = ObjectStore(repo.theta_dir, _shared_store(repo, chosen))
    try:
        yield Workspace(repo, StorageContext(store, index, chosen, progress or NullProgress()))
    finally:
        store.close()
        index.close()
        repo.close()


def _shared_store(repo: Repository, chosen: settings.Settings) -> SharedStore | None:
    folder = chosen.shared_folder
    return SharedStore(folder, repo.theta_dir) if folder else None


def _settings(
    repo: Repository, config: Mapping[str, str], complain: Callable[[ThetaError], None] | None
) -> settings.Settings:
    ours = {key: value for key, value in config.items() if key.startswith("theta.")}
    try:
        return settings.load(ours, repo.team_settings(), os.environ)
    except SettingsError as error:
        chosen = settings.load(ours, {}, os.environ)  # else it is the user's own mistake
        if complain is not None:
            error.details = ("its settings do not count until it is mended",)
            complain(error)
        return chosen
