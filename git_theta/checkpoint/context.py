"""Where a repository's objects lie, and how to work with them."""

from __future__ import annotations

from dataclasses import dataclass, field

from git_theta.core.progress import NullProgress, Progress
from git_theta.core.settings import Settings
from git_theta.store import Index, ObjectStore


@dataclass(frozen=True, slots=True)
class StorageContext:
    """Where objects lie, what is known of them, and how to work."""

    store: ObjectStore
    index: Index
    settings: Settings = field(default_factory=Settings)
    progress: Progress = field(default_factory=NullProgress)
