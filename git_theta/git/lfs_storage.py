"""Objects on this machine: in git-lfs's storage and ours, here and next door."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from git_theta.errors import GitError, MissingToolError
from git_theta.git import command
from git_theta.git.command import decode
from git_theta.git.repository import Repository

INSTALL = "install git-lfs 3.3 or newer, for example: apt install git-lfs"


def media_dir(common_dir: Path, moved: str | None, ask: Ask) -> Path:
    """Return the folder where git-lfs keeps the objects of a repository, which ``ask`` asks git.

    By default that is ``lfs/objects``; only where it was ``moved`` (the setting ``lfs.storage``)
    git-lfs is asked, which starts ten programs to answer.
    """
    if not moved:
        return common_dir / "lfs" / "objects"
    for line in decode(ask("lfs", "env")).splitlines():
        key, _, value = line.partition("=")
        if key == "LocalMediaDir":
            return Path(value)
    raise MissingToolError("git lfs env does not say where objects are", hint=INSTALL)


def media_path(media: Path, oid: str) -> Path:
    """Return where git-lfs keeps an object below its folder."""
    return media / oid[:2] / oid[2:4] / oid


def has_size(file: Path, size: int) -> bool:
    """Return whether ``file`` is there with ``size`` bytes."""
    try:
        return file.is_file() and file.stat().st_size == size
    except OSError:  # somebody else's, who does not let us look
        return False


class Ask(Protocol):
    """Runs git in some repository."""

    def __call__(self, *args: str, check: bool = True) -> bytes:
        """Return the output of a git command."""
        ...


class Neighbour:
    """A repository in a folder of this machine, whose objects can be read where they lie.

    git-lfs serves what is in its own storage alone; a colleague's work is in ``theta/objects``.
    ``repo`` is the one at work.
    """

    def __init__(self, folder: Path, repo: Repository) -> None:
        self._media: Path | None = None
        self._common: Path | None = None
        try:
            ask = partial(_ask, folder, repo.local_variables)
            found = ask("rev-parse", "--path-format=absolute", "--git-common-dir")
            self._common = Path(decode(found).removesuffix("\n"))
            moved = decode(ask("config", "--get", "lfs.storage", check=False)).strip()
            self._media = media_dir(self._common, moved, ask)
        except (GitError, MissingToolError):
            # Owned by somebody else, and not trusted: git-lfs is asked, and says so.
            return

    def find(self, oid: str, size: int) -> Path | None:
        """Return the object's file, which has the right size but was not verified."""
        return next((file for file in self._files(oid) if has_size(file, size)), None)

    def _files(self, oid: str) -> Iterator[Path]:
        if self._media is not None:
            yield media_path(self._media, oid)
        if self._common is not None:
            yield self._common / "theta" / "objects" / oid[:2] / oid


def _ask(folder: Path, local: Sequence[str], *args: str, check: bool = True) -> bytes:
    # Another repository: nothing that git told us about ours counts there.
    unset: dict[str, str | None] = dict.fromkeys(local)
    return command.run(["git", *args], cwd=folder, env=unset, check=check)


def alternates(repo: Repository) -> list[Path]:
    """Return the repositories that this one borrows Git objects from (gitrepository-layout(5))."""
    file = repo.common_dir / "objects" / "info" / "alternates"
    try:
        lines = decode(file.read_bytes()).splitlines()
    except OSError:
        return []
    folders = (file.parent.parent / line for line in lines if line and not line.startswith("#"))
    return [folder.resolve().parent for folder in folders if folder.is_dir()]
