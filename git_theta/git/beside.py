"""What lies beside a blob in the commits that have it, where git tells a blob and no commit."""

from __future__ import annotations

from dataclasses import dataclass

from git_theta.git.command import decode
from git_theta.git.merge_heads import parents_of
from git_theta.git.repository import Repository

# The commit that is replayed, where git stopped at it, or is about to record the result.
_PICKED, _REVERTED = ("CHERRY_PICK_HEAD", "REBASE_HEAD"), "REVERT_HEAD"


@dataclass(frozen=True, slots=True)
class Change:
    """A commit and a parent of it: ``before`` is the parent, but of a revert the commit."""

    before: str
    after: str


def blob_beside(repo: Repository, path: str, blob: str, other: str) -> str | None:
    """Return the blob at ``other`` wherever ``path`` is ``blob``; ``None`` where that differs.

    Looks in the index and in every commit that a branch, a tag, another ref or the reflog leads to:
    of those that changed neither file, what they have is what an earlier one has.
    """
    found = {
        repo.identify(f"{commit}:{other}")
        for commit in ("", *_commits(repo, path, other))
        if repo.identify(f"{commit}:{path}") == blob
    }
    return found.pop() if len(found) == 1 else None


def change_of(
    repo: Repository, path: str, before: bytes, after: bytes, other: str
) -> Change | None:
    """Return the commit that turned ``path`` from one text into the other, or is reverted to.

    Git tells a driver no commit but in a merge. ``None`` where there is none, or several and what
    they have at ``other`` differs.
    """
    blobs = [_blob_id(repo, text) for text in (before, after)]
    found = [
        change
        for commit in _commits(repo, path, other)
        if repo.identify(f"{commit}:{path}") in blobs
        for parent in parents_of(repo, commit)
        for change in (Change(parent, commit), Change(commit, parent))
        if [repo.identify(f"{each}:{path}") for each in (change.before, change.after)] == blobs
    ]
    picked, reverted = {repo.resolve(name) for name in _PICKED}, repo.resolve(_REVERTED)
    named = [each for each in found if each.after in picked or each.before == reverted]
    found = named or found
    beside = {
        (repo.identify(f"{each.before}:{other}"), repo.identify(f"{each.after}:{other}"))
        for each in found
    }
    return found[0] if len(beside) == 1 else None


def is_at(repo: Repository, rev: str, path: str, text: bytes) -> bool:
    """Return whether a commit, or the index where ``rev`` is empty, has this text at a path."""
    return repo.identify(f"{rev}:{path}") == _blob_id(repo, text)


def _blob_id(repo: Repository, text: bytes) -> str:
    return decode(repo.git("hash-object", "--no-filters", "--stdin", stdin=text)).strip()


def _commits(repo: Repository, *paths: str) -> list[str]:
    """Return the commits that changed any of the paths."""
    options = ("--all", "--reflog", "--full-history")
    literal = (f":(top,literal){path}" for path in paths)
    return decode(repo.git("rev-list", *options, "--", *literal, check=False)).split()
