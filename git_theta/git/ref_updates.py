"""Branches and tags as people name them, and many refs moved in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from git_theta.errors import UsageError
from git_theta.git.command import decode, encode
from git_theta.git.repository import Repository

_FORMAT = "--format=%(objectname) %(refname) %(symref)"


@dataclass(frozen=True, slots=True)
class RefChange:
    """A ref, the id that it must have (``None``: there is none), and its new one (or none)."""

    name: str
    old: str | None
    new: str | None


def listed(repo: Repository, *prefixes: str) -> dict[str, str]:
    """Return the refs below ``prefixes`` and the id of each; without those that name others."""
    rows = decode(repo.git("for-each-ref", _FORMAT, *prefixes)).splitlines()
    parts = (row.split(" ", 2) for row in rows)
    return {name: id_ for id_, name, symref in parts if not symref}


def current_branch(repo: Repository) -> str | None:
    """Return the full name of the branch that is checked out; ``None`` where HEAD is detached."""
    return decode(repo.git("symbolic-ref", "--quiet", "HEAD", check=False)).strip() or None


def named(repo: Repository, words: Sequence[str]) -> dict[str, str]:
    """Return the branches and tags that ``words`` name, such as ``main``, and the id of each.

    Raises ``UsageError`` for anything else.
    """
    known = listed(repo, "refs/heads/", "refs/tags/")
    found = {}
    for word in words:
        spelled = (word, f"refs/heads/{word}", f"refs/tags/{word}")
        name = next((each for each in spelled if each in known), None)
        if word == "HEAD":
            name = current_branch(repo)
        if name is None or name not in known:
            raise UsageError(
                f"{word} is neither a branch nor a tag here",
                hint="git branch; git tag; a remote's branch needs one here first: git switch NAME",
            )
        found[name] = known[name]
    return found


def update(repo: Repository, changes: Iterable[RefChange], reason: str) -> None:
    """Make all ``changes``, or none: ``GitError`` where a ref is not what it must be.

    ``reason`` stands in the reflogs.
    """
    records = b"".join(map(_record, changes))
    stdin = b"start\0" + records + b"prepare\0commit\0"
    repo.git("update-ref", "-m", reason, "--create-reflog", "-z", "--stdin", stdin=stdin)


def _record(change: RefChange) -> bytes:
    name = encode(change.name)
    if change.new is None:
        return b"delete %b\0%b\0" % (name, (change.old or "").encode())
    if change.old is None:
        return b"create %b\0%b\0" % (name, change.new.encode())
    return b"update %b\0%b\0%b\0" % (name, change.new.encode(), change.old.encode())
