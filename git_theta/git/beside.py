"""What lies beside a blob in the commits that have it, where git tells a blob and no commit."""

from __future__ import annotations

from git_theta.git.command import decode
from git_theta.git.repository import Repository


def blob_beside(repo: Repository, path: str, blob: str, other: str) -> str | None:
    """Return the blob at ``other`` wherever ``path`` is ``blob``; ``None`` where that differs.

    Looks in the index and in every commit that a branch, a tag, another ref or the reflog leads to:
    of those that changed neither file, what they have is what an earlier one has.
    """
    options = ("--all", "--reflog", "--full-history")
    listed = decode(repo.git("rev-list", *options, "--", *_literal(path, other), check=False))
    found = {
        repo.identify(f"{commit}:{other}")
        for commit in ("", *listed.split())
        if repo.identify(f"{commit}:{path}") == blob
    }
    return found.pop() if len(found) == 1 else None


def _literal(*paths: str) -> list[str]:
    return [f":(top,literal){path}" for path in paths]
