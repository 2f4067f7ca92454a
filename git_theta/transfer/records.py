"""Objects known to be on a remote: a file for each URL, below ``theta/uploaded``.

Tracking refs prove nothing: they outlive `git remote set-url`, and a push with `--no-verify` or
without our hook moves them too. So this is written after objects have arrived, and by nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from git_theta.core.files import atomic_file
from git_theta.core.locks import exclusive_lock
from git_theta.git import Repository
from git_theta.git.remotes import Remote

_COMMIT = re.compile(r"commit ([0-9a-f]{40,64})")
_OBJECT = re.compile(r"object ([0-9a-f]{64})")

_COMMITS_KEPT = 256
"""The newest ones. Each new one usually has the older ones in its history."""


@dataclass(frozen=True, slots=True)
class Known:
    """``objects`` are on the remote. Of the history of ``commits``, all that were here are."""

    commits: tuple[str, ...]
    objects: frozenset[str]


def load(repo: Repository, remote: Remote) -> Known:
    """Return what is known of a remote; nothing where the record cannot be read."""
    try:
        lines = (repo.theta_dir / "uploaded" / remote.key).read_text("ascii").splitlines()
    except (OSError, ValueError):
        return Known((), frozenset())
    commits = tuple(match[1] for match in map(_COMMIT.fullmatch, lines) if match)
    objects = frozenset(match[1] for match in map(_OBJECT.fullmatch, lines) if match)
    return Known(commits, objects)


def add(
    repo: Repository, remote: Remote, *, commits: Iterable[str] = (), objects: Iterable[str] = ()
) -> None:
    """Record what has arrived; several processes may do so at once."""
    _change(repo, remote, lambda old: _joined(old, commits, objects))


def forget(repo: Repository, remote: Remote, objects: Iterable[str]) -> None:
    """Take objects for uploaded no longer, nor any history for looked at."""
    gone = frozenset(objects)
    _change(repo, remote, lambda old: Known((), old.objects - gone))


def _joined(old: Known, commits: Iterable[str], objects: Iterable[str]) -> Known:
    newest = tuple(dict.fromkeys((*commits, *old.commits)))[:_COMMITS_KEPT]
    return Known(newest, old.objects.union(objects))


def _change(repo: Repository, remote: Remote, change: Callable[[Known], Known]) -> None:
    folder = repo.theta_dir / "uploaded"
    with exclusive_lock(folder / "lock"):
        old = load(repo, remote)
        new = change(old)
        if new == old:
            return
        lines = [f"commit {commit}\n" for commit in new.commits]
        lines += [f"object {oid}\n" for oid in sorted(new.objects)]
        with atomic_file(folder / remote.key) as file:
            file.write("".join(lines).encode())
