"""The refs of a history before it was migrated, kept so that all of it can be undone."""

from __future__ import annotations

import re
from collections.abc import Mapping

from git_theta.core.messages import short_id
from git_theta.errors import UsageError
from git_theta.git import Repository, ref_updates
from git_theta.git.ref_updates import RefChange

NAMESPACE = "refs/theta/original/"

_REF = re.compile(rf"{NAMESPACE}([0-9]+)/((?:old|new)/.+)")


def next_number(repo: Repository) -> int:
    """Return the number of the migration that comes next, from 1 on."""
    return max(_numbers(repo), default=0) + 1


def _numbers(repo: Repository) -> set[int]:
    matches = map(_REF.fullmatch, ref_updates.listed(repo, NAMESPACE))
    return {int(match[1]) for match in matches if match}


def kept(number: int, moved: Mapping[str, tuple[str, str]]) -> list[RefChange]:
    """Return the refs that keep what ``moved`` refs name before and after, and those moves."""
    changes = []
    for name, (old, new) in moved.items():
        inner = name.removeprefix("refs/")
        changes.append(RefChange(f"{NAMESPACE}{number}/old/{inner}", None, old))
        changes.append(RefChange(f"{NAMESPACE}{number}/new/{inner}", None, new))
        changes.append(RefChange(name, old, new))
    return changes


def undone(repo: Repository) -> tuple[int, dict[str, tuple[str, str]], list[RefChange]]:
    """Return the last migration, its refs as they are and were, and what takes it back.

    Raises ``UsageError`` where there is none, or where a ref has moved since: what was committed
    on top of the new history would be lost.
    """
    numbers = _numbers(repo)
    if not numbers:
        raise UsageError("there is no migration to undo", hint=f"git for-each-ref {NAMESPACE}")
    number = max(numbers)
    prefix = f"{NAMESPACE}{number}/"
    refs = ref_updates.listed(repo, prefix)
    before = {n.removeprefix(f"{prefix}old/"): i for n, i in refs.items() if "/old/" in n}
    after = {n.removeprefix(f"{prefix}new/"): i for n, i in refs.items() if "/new/" in n}
    now = ref_updates.listed(repo, "refs/heads/", "refs/tags/")
    moved, changes = dict[str, tuple[str, str]](), list[RefChange]()
    for inner, old in before.items():
        name, new = f"refs/{inner}", after.get(inner, "")
        if now.get(name) != new:
            raise _moved_since(name, now.get(name), f"{prefix}old/{inner}")
        moved[name] = (new, old)
        changes.append(RefChange(name, new, old))
    changes += [RefChange(name, id_, None) for name, id_ in refs.items()]
    return number, moved, changes


def _moved_since(name: str, now: str | None, backup: str) -> UsageError:
    is_at = f"is at {short_id(now)}" if now else "is gone"
    return UsageError(
        f"{name} {is_at}: it has moved since the migration, and undoing that would lose commits",
        hint=f"what it was is {backup}: git branch NAME {backup}",
    )
