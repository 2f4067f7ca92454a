"""The files that anything in a repository holds on to: refs, reflogs, indexes, operations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from git_theta.errors import GitError, LockedError
from git_theta.git import entries, roots
from git_theta.git.command import decode
from git_theta.git.entries import Entry
from git_theta.git.repository import Repository


def all_entries(repo: Repository, exclude: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield the blobs that anything here holds on to, most of them once.

    Refs, reflogs, the stash, HEAD and the index of every work tree, operations under way.
    With ``exclude``, options such as ``--remotes``, without what is in their history, and
    without indexes (see ``staged``). What a partial clone has not fetched is left out.
    """
    here = ["--ignore-missing", "--missing=allow-promisor"]
    others = ["--not", *exclude] if exclude else ["--indexed-objects"]
    walk = [*here, "--all", "--reflog", *others]
    yield from entries.of_history(walk, [], repo.top, repo.environment())
    for file in roots.indexes(repo.common_dir):
        yield from _spare_index(repo, file)
    # Most of what git's files name is in a ref or reflog too.
    rest = [*here, "--not", "--all", "--reflog", *exclude, "--not"]
    yield from _held(repo, roots.held(repo.common_dir), rest)


def staged(repo: Repository) -> Iterator[Entry]:
    """Yield the files in the index of any work tree that are not in its HEAD."""
    for folder in roots.git_dirs(repo.common_dir):
        prefix = "main-worktree" if folder == repo.common_dir else f"worktrees/{folder.name}"
        head = {entry.blob for entry in repo.tree(f"{prefix}/HEAD")}
        if (folder / "index").exists():
            for entry in _index_of(repo, folder / "index"):
                if entry.blob not in head:
                    yield entry


def _held(repo: Repository, ids: list[str], options: list[str]) -> Iterator[Entry]:
    """Yield the blobs in the history of ``ids``, as far as it is still there.

    `git gc` does not keep what ORIG_HEAD names.
    """
    try:
        yield from entries.of_history(options, ids, repo.top, repo.environment())
    except GitError:
        listed = repo.git("rev-list", "--ignore-missing", "--stdin", check=False, stdin=_lines(ids))
        for tree in {*ids, *decode(listed).split()}:
            yield from entries.of_tree(repo.git, tree)


def _spare_index(repo: Repository, file: Path) -> Iterator[Entry]:
    """Yield the files of an index that git has made for a while; none of one that is gone.

    ``LockedError`` where git is just writing it.
    """
    with suppress(FileNotFoundError):
        if not file.stat().st_size:
            return
        if not roots.is_whole(file):
            raise LockedError(
                "git is writing its index",
                path=str(file),
                hint="run the command again; if no git command is running, remove the file",
            )
        yield from _index_of(repo, file)


def _index_of(repo: Repository, file: Path) -> list[Entry]:
    return entries.of_index(partial(repo.git, env={"GIT_INDEX_FILE": str(file)}))


def _lines(words: Iterable[str]) -> bytes:
    return "".join(f"{word}\n" for word in words).encode()
