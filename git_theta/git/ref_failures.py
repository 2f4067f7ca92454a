"""Why a pointer ref could not be pushed, and what to do about it.

Only a ref that the host's rules reject may have another name. A lock, a failed write and a lost
connection are told as what they are.
"""

from __future__ import annotations

import re
import shlex

from git_theta.errors import GitError, TransferError
from git_theta.git import refusals
from git_theta.git.remotes import Remote

# What git says of a ref that the host's own rules turned down; it does not translate it.
_REJECTED = "[remote rejected]"
_LOCKED = re.compile(r"\.lock['\"]")
_BROKEN = "(failed to update ref)"


class RejectedRefError(TransferError):
    """The host's rules refuse a ref: one of another name may do."""


def failure(remote: Remote, ref: str, error: GitError) -> TransferError:
    """Return the error that says why a ref could not be pushed, and what to do about it."""
    words = refusals.words_of(error)
    if _LOCKED.search(words):
        return TransferError(
            f"{remote.title} has a lock on {ref}: the pointers of the uploaded objects cannot be "
            "pushed",
            details=(error.message, *error.details),
            hint=f"push again; if it stays, a push was killed there: {_unlock(remote, ref)}",
        )
    what = f"{remote.title} does not take the pointers of the uploaded objects: {error.message}"
    if is_rejected(error):
        hint = "for a host that keeps objects without pointers: git config theta.pointers false"
        return RejectedRefError(what, details=error.details, hint=hint)
    refusal = refusals.find(words)
    hint = refusal.hint if refusal else f"git ls-remote {shlex.quote(remote.title)}; push again"
    return TransferError(what, details=error.details, hint=hint)


def is_rejected(error: GitError) -> bool:
    """Return whether the host's rules are against the ref: to push it again is of no use."""
    words = refusals.words_of(error)
    return _REJECTED in words and _BROKEN not in words and not _LOCKED.search(words)


def _unlock(remote: Remote, ref: str) -> str:
    """Say how to remove a lock; its path is not what the remote says, for that may be any file."""
    folders = [remote.folder, remote.folder / ".git"] if remote.folder else []
    for lock in (folder / f"{ref}.lock" for folder in folders):
        if lock.exists():
            return f"rm {shlex.quote(str(lock))}"
    return f"on the host, remove {ref}.lock from the repository"
