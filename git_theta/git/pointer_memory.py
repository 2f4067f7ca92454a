"""What commits of pointers name, kept here so that nobody fetches refs that he pushed himself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from git_theta.core.files import atomic_file
from git_theta.git.repository import Repository


def remembered(repo: Repository, commit: str) -> list[str] | None:
    """Return the oids that a commit names: none if not ours, ``None`` if that is not known."""
    try:
        return _file(repo, commit).read_text("ascii").split()
    except (OSError, ValueError):
        return None


def remember(repo: Repository, commit: str, objects: Iterable[str]) -> None:
    """Keep what a commit names."""
    with atomic_file(_file(repo, commit)) as file:
        file.write("".join(f"{oid}\n" for oid in objects).encode())


def forget(repo: Repository, commit: str) -> None:
    """Keep it no longer."""
    _file(repo, commit).unlink(missing_ok=True)


def _file(repo: Repository, commit: str) -> Path:
    return repo.theta_dir / "published" / commit
