"""What is asked of a migration, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Request:
    """A migration: of which refs (the current branch without any), and which paths in them.

    Globs are those of `.gitattributes`. ``plain`` is for an export to files in Git itself.
    """

    include: Sequence[str]
    exclude: Sequence[str] = ()
    refs: Sequence[str] = ()
    everything: bool = False
    plain: bool = False
    dry_run: bool = False
    map_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A migration that is done, or that was only tried.

    ``before`` and ``after`` are what ``versions`` different files take, in bytes. ``moved`` has
    the old and the new id of each ref. ``left`` are refs that still have the old history.
    """

    versions: int
    before: int
    after: int
    commits: int
    moved: Mapping[str, tuple[str, str]]
    signatures: int = 0
    number: int = 0
    map_file: Path | None = None
    left: Sequence[str] = field(default=())
