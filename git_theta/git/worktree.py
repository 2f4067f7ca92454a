"""What git thinks of the files in the work tree."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from git_theta.core.messages import as_typed, plural
from git_theta.errors import GitError, LockedError, UsageError
from git_theta.git import index_file
from git_theta.git.command import decode
from git_theta.git.repository import Repository

_UNREAD = os.stat_result([0] * os.stat_result.n_fields)
"""What git, too, writes for a file that it has not looked at (`git read-tree`)."""

_ELSEWHERE = "git worktree add FOLDER, then run it there"
_PAUSE = 0.05


class FileStatus(NamedTuple):
    """A file that differs between HEAD, the index and the work tree, as `git status` tells it.

    ``before`` is its path in HEAD, another one where it was renamed. ``staged`` and ``work_tree``
    are git's letters, such as ``M``, ``A``, ``D``, ``R``, or ``.`` for no difference. ``blobs``
    are HEAD's and the index's; of a file in conflict the base's, ours and theirs. ``None`` stands
    for none.
    """

    path: str
    before: str
    staged: str
    work_tree: str
    in_conflict: bool
    blobs: tuple[str | None, ...]


def require_work_tree(repo: Repository, command: str, hint: str | None = None) -> Path:
    """Return the root of the work tree; ``UsageError`` where ``command`` has none to work on."""
    if repo.work_tree is None:
        raise UsageError(f"{command} needs a work tree", hint=hint or _ELSEWHERE)
    return repo.work_tree


def status(repo: Repository) -> list[FileStatus]:
    """Return the tracked files that differ; git runs the clean filter where times changed.

    One command finds renames and conflicts too; `diff-index`, `diff-files` and `ls-files -u`
    would be three. Raises ``GitError`` without a work tree.
    """
    options = ("--porcelain=v2", "-z", "--untracked-files=no", "--ignore-submodules=all")
    fields = iter(decode(repo.git("status", *options, "--find-renames")).split("\0")[:-1])
    return [_file_status(field, fields) for field in fields if field[:1] in "12u"]


def _file_status(record: str, rest: Iterator[str]) -> FileStatus:
    """Read a record of git-status(1): words, then the path, which may hold blanks.

    1 XY sub mH mI mW hH hI path; 2 ... score path, then the old path; u XY sub m1-m3 mW h1-h3 path
    """
    kind = record[0]
    *words, path = record.split(" ", {"1": 8, "2": 9, "u": 10}[kind])
    blobs = words[7:10] if kind == "u" else words[6:8]
    return FileStatus(
        path=path,
        before=next(rest) if kind == "2" else path,
        staged=words[1][0],
        work_tree=words[1][1],
        in_conflict=kind == "u",
        blobs=tuple(blob if blob.strip("0") else None for blob in blobs),
    )


def skipped(repo: Repository) -> set[str]:
    """Return the files of the index that a sparse checkout leaves out of the work tree."""
    listed = decode(repo.git("ls-files", "-z", "-t")).split("\0")
    return {record[2:] for record in listed if record.startswith("S ")}


def absent_blobs(repo: Repository) -> set[str]:
    """Return the blobs of the index and of HEAD that a partial clone has not fetched.

    Asking git for one would fetch it.
    """
    head = ["HEAD"] if repo.resolve("HEAD") else []
    walk = ("rev-list", "--objects", "--missing=print", "--no-walk", "--indexed-objects")
    listed = decode(repo.git(*walk, *head, "--")).split("\n")  # a file may be called HEAD
    return {line[1:] for line in listed if line.startswith("?")}


def work_trees(repo: Repository) -> list[Path]:
    """Return the folders of all work trees of this repository that are there."""
    listed = decode(repo.git("worktree", "list", "--porcelain")).split("\n")
    folders = [Path(line.removeprefix("worktree ")) for line in listed if line[:9] == "worktree "]
    return [folder for folder in folders if folder.is_dir()]


def renew_index(repo: Repository, paths: Sequence[str]) -> bool:
    """Let git write its index as of now; return whether it did: git may be too old.

    Files of the second of the index before are looked at once more by git. Raises ``LockedError``
    as for ``refresh``.
    """
    try:
        _update_index(repo, paths, "--force-write-index")
    except GitError:
        return False
    return True


def refresh(repo: Repository, paths: Iterable[str]) -> None:
    """Let git see that ``paths``, written behind its back, are what the index says.

    Plain ``--refresh`` takes a file whose size changed for modified without reading it, unless the
    index has no size of it. Paths given one by one are read, but also added, if they are modified:
    that is for those of which the index is not written here. Other paths may be in conflict.
    Raises ``LockedError`` where another command keeps the index locked for too long.
    """
    listed = list(paths)
    options = ("-q", "--unmerged", "--refresh")
    unread = index_file.edit(repo.index_file, dict.fromkeys(listed, lambda _: _UNREAD))
    if unread:
        _update_index(repo, listed, *options)
    rest = [path for path in listed if path not in unread]
    if rest:
        told = b"".join(os.fsencode(path) + b"\0" for path in rest)
        _update_index(repo, rest, *options, "-z", "--stdin", stdin=told)


def _update_index(
    repo: Repository, paths: Sequence[str], *options: str, stdin: bytes | None = None
) -> None:
    """Run `git update-index`, after other commands, for ``paths`` that were written."""
    lock, until = index_file.lock_of(repo.index_file), time.monotonic() + index_file.PATIENCE
    while True:
        was_locked = lock.exists()
        try:
            repo.git("update-index", *options, stdin=stdin)
        except GitError as error:  # with -q git does not say why
            if not was_locked and not lock.exists():
                raise
            if time.monotonic() >= until:
                raise _locked(lock, paths) from error
            time.sleep(_PAUSE)
        else:
            return


def _locked(lock: Path, paths: Sequence[str]) -> LockedError:
    return LockedError(
        f"another command keeps git's index locked, so that git takes {plural(len(paths), 'file')} "
        "for modified",
        path=str(lock),
        hint="when it has ended, or if no git command is running and the lock is removed: git add "
        + " ".join(map(as_typed, paths)),
    )
