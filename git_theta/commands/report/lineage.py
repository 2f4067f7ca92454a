"""The commits that led to two versions, and what each stored: a graph with lanes, as git's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from git_theta.commands.log import Commit, history
from git_theta.git import Repository
from git_theta.git.command import decode

SHOWN = 24
"""Commits that changed checkpoints, the latest ones."""

# Commits between those that changed checkpoints, which edges lead across.
_WALKED = 20_000


@dataclass(frozen=True, slots=True)
class Node:
    """A commit in row ``row`` and lane ``lane``; ``stored`` is in bytes.

    ``parents`` are rows of the next commits below it. ``names`` are what the user calls it.
    """

    row: int
    lane: int
    commit: str
    date: str
    author: str
    subject: str
    stored: int
    parents: tuple[int, ...]
    names: tuple[str, ...] = ()


def lineage(
    repo: Repository, heads: Mapping[str, str], paths: Sequence[str] = ()
) -> tuple[Node, ...]:
    """Return the commits that changed checkpoints (at ``paths``) and led to ``heads``, by name."""
    commits = list(dict.fromkeys(heads.values()))
    shown = list(history(repo, [*commits, "--topo-order"], paths, SHOWN))
    parents = _parents(repo, commits)
    nearest = _nearest(parents, {each.commit for each in shown})
    names: dict[str, list[str]] = {}
    for name, commit in heads.items():
        for found in nearest.get(commit, ())[:1]:
            names.setdefault(found, []).append(name)
    edges = {each.commit: _below(parents[each.commit], nearest) for each in shown}
    return _laid_out(shown, edges, names)


def _parents(repo: Repository, heads: Sequence[str]) -> dict[str, list[str]]:
    """Return the parents of each commit, every commit before its parents."""
    options = ("--topo-order", "--parents", f"--max-count={_WALKED}")
    lines = decode(repo.git("rev-list", *options, *heads)).splitlines()
    return {commit: parents for commit, *parents in map(str.split, lines)}


def _nearest(parents: dict[str, list[str]], shown: set[str]) -> dict[str, tuple[str, ...]]:
    """Return for each commit the next of those that are shown: itself, or ancestors."""
    found: dict[str, tuple[str, ...]] = {}
    for commit in reversed(parents):
        found[commit] = (commit,) if commit in shown else _below(parents[commit], found)
    return found


def _below(parents: Sequence[str], nearest: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each for parent in parents for each in nearest.get(parent, ())))


def _laid_out(
    shown: Sequence[Commit],
    edges: Mapping[str, Sequence[str]],
    names: Mapping[str, Sequence[str]],
) -> tuple[Node, ...]:
    rows = {each.commit: row for row, each in enumerate(shown)}
    lanes: list[str | None] = []
    nodes = []
    for row, each in enumerate(shown):
        parents = edges[each.commit]
        lane = _take(lanes, each.commit)
        lanes = [None if commit == each.commit else commit for commit in lanes]
        for parent in parents:
            if parent not in lanes:
                free = lane if lanes[lane] is None else _take(lanes, None)
                lanes[free] = parent
        nodes.append(
            Node(
                row=row,
                lane=lane,
                commit=each.commit,
                date=each.date,
                author=each.author,
                subject=each.subject,
                stored=sum(revision.difference.stored for revision in each.checkpoints),
                parents=tuple(rows[parent] for parent in parents if rows[parent] > row),
                names=tuple(names.get(each.commit, ())),
            )
        )
    return tuple(nodes)


def _take(lanes: list[str | None], commit: str | None) -> int:
    """Return the lane that waits for a commit, or a free one."""
    for wanted in (commit, None):
        if wanted in lanes:
            return lanes.index(wanted)
    lanes.append(None)
    return len(lanes) - 1
