"""Tracked files that Git holds whole, or as pointers of Git LFS, because no filter of ours ran.

Somebody committed them without git-theta, or before their path was tracked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from git_theta.core.messages import as_typed
from git_theta.git import Entry, Repository, attributes, entries
from git_theta.git.command import decode
from git_theta.git.lfs_files import LONGEST, file_command, is_pointer
from git_theta.git.tracked import TrackedPaths

_SHOWN = 100
"""Files whose commits are looked up: each costs a walk through history."""


@dataclass(frozen=True, slots=True)
class WholeFile:
    """A file of ``size`` bytes; ``commit`` brought it there, ``None`` where it is only staged."""

    path: str
    size: int
    is_pointer: bool
    commit: str | None


def remedy(repo: Repository, file: WholeFile, typed: str) -> str:
    """Return the command that has git-theta store a file, called ``typed`` in this folder."""
    word = as_typed(typed)
    if file.is_pointer:
        return f"{file_command(repo, file.path, typed)}, then git add --renormalize {word}"
    return f"git add --renormalize -- {word}, then commit it"


def in_index(repo: Repository) -> list[WholeFile]:
    """Return those of the index, by the attributes that the work tree has."""
    staged = {entry.path: entry for entry in repo.index() if entry.stage == 0}
    filters = attributes.effective(repo, staged)
    tracked = (entry for path, entry in staged.items() if filters[path] == "theta")
    return _with_commits(repo, "HEAD", _whole(repo, tracked))


def in_tree(repo: Repository, rev: str, files: Iterable[Entry]) -> list[WholeFile]:
    """Return those among the ``files`` of ``rev``, by the attributes that it has."""
    with TrackedPaths(repo) as tracked:
        covered = [entry for entry in files if tracked.covers(entry)]
    return _with_commits(repo, rev, _whole(repo, covered))


def in_range(repo: Repository, tips: Sequence[str], known: Sequence[str]) -> list[WholeFile]:
    """Return those that the history of ``tips`` brings and the history of ``known`` does not."""
    with TrackedPaths(repo) as tracked:
        # By attribute first: other blobs may be large, and are not for us to read.
        brought = repo.range_entries(tips, known)
        covered = {(entry.path, entry.blob): entry for entry in brought if tracked.covers(entry)}
    return [file for _, file in _whole(repo, covered.values())]


def _whole(repo: Repository, tracked: Iterable[Entry]) -> Iterator[tuple[Entry, WholeFile]]:
    for entry in entries.sized(repo.git, tracked):
        if entry.size and not any(repo.manifests([entry])):
            pointer = is_pointer(repo.read_blob(entry.blob, LONGEST))
            yield entry, WholeFile(entry.path, entry.size, pointer, entry.commit)


def _with_commits(
    repo: Repository, rev: str, found: Iterable[tuple[Entry, WholeFile]]
) -> list[WholeFile]:
    """Name the last commit of ``rev`` that changed each, where it has the same blob."""
    files = []
    for number, (entry, file) in enumerate(found):
        commit = _commit(repo, rev, entry) if number < _SHOWN else None
        files.append(replace(file, commit=commit))
    return files


def _commit(repo: Repository, rev: str, entry: Entry) -> str | None:
    if repo.resolve(f"{rev}:{entry.path}") != entry.blob:
        return None
    asked = ("log", "-1", "--format=%H", "--end-of-options", rev, "--")
    found = repo.git(*asked, f":(literal,top){entry.path}", check=False)
    return decode(found).strip() or None
