"""Bytes that checkpoints, branches and tags need, alone and together with others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from git_theta.git import Repository, ref_updates
from git_theta.git.command import decode
from git_theta.transfer.needs import Warn, history_entries, read_manifests
from git_theta.workspace import Workspace

_REFS = ("refs/heads/", "refs/tags/", "refs/remotes/")


@dataclass(frozen=True, slots=True)
class Usage:
    """The objects that ``names`` need: their bytes, and those that nothing else in the list needs.

    ``here`` is how many of the bytes are in this clone. Branches and tags of one commit are
    listed together.
    """

    names: tuple[str, ...]
    objects: int
    size: int
    exclusive: int
    here: int

    @property
    def shared(self) -> int:
        """Bytes that others need too."""
        return self.size - self.exclusive


@dataclass(frozen=True, slots=True)
class Report:
    """A row for each name, all of them together, and the bytes here that none of them needs."""

    rows: tuple[Usage, ...]
    total: Usage
    unneeded: int


def of_commit(workspace: Workspace, rev: str, warn: Warn) -> Report:
    """Return what each checkpoint in the tree of ``rev``, an id, needs."""
    files = workspace.repo.tree(rev)
    needs = {
        entry.blob: found.objects() for entry, found in read_manifests(workspace.repo, files, warn)
    }
    users: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = {}
    paths = [entry for entry in files if entry.blob in needs]
    for number, entry in enumerate(paths):
        for oid, size in needs[entry.blob].items():
            users[oid] |= 1 << number
            sizes[oid] = size
    return _report(workspace, [(entry.path,) for entry in paths], users, sizes)


def of_refs(workspace: Workspace, warn: Warn) -> Report:
    """Return what the history of each branch and tag needs, remote-tracking branches included.

    History is walked once: each commit knows the refs that it is in, and an object those of all
    commits that brought it.
    """
    repo = workspace.repo
    tips = _tips(repo)
    members = _members(repo, list(tips))
    users: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = {}
    entries = list(history_entries(repo, tips))
    needs = {entry.blob: found.objects() for entry, found in read_manifests(repo, entries, warn)}
    for entry in entries:
        for oid, size in needs.get(entry.blob, {}).items():
            users[oid] |= members[entry.commit or ""]
            sizes[oid] = size
    return _report(workspace, list(tips.values()), users, sizes)


def _tips(repo: Repository) -> Mapping[str, tuple[str, ...]]:
    """Return the names of the refs of each commit."""
    refs = ref_updates.listed(repo, *_REFS)
    peeled = repo.peel(refs.values())
    found: dict[str, list[str]] = defaultdict(list)
    for name, id_ in refs.items():
        kind, commit = peeled.get(id_, ("", ""))
        if kind == "commit":
            found[commit].append(_short(name))
    return {commit: tuple(names) for commit, names in found.items()}


def _short(name: str) -> str:
    return name.removeprefix("refs/").removeprefix("heads/").removeprefix("remotes/")


def _members(repo: Repository, tips: Sequence[str]) -> Mapping[str, int]:
    """Return for each commit, as bits, in the history of which of ``tips`` it is."""
    members: dict[str, int] = defaultdict(int)
    for number, tip in enumerate(tips):
        members[tip] |= 1 << number
    walk = ("rev-list", "--topo-order", "--parents", "--stdin")
    asked = "".join(f"{tip}\n" for tip in tips).encode()
    for line in decode(repo.git(*walk, stdin=asked)).splitlines() if tips else ():
        commit, *parents = line.split()
        for parent in parents:
            members[parent] |= members[commit]
    return members


def _report(
    workspace: Workspace,
    names: Sequence[tuple[str, ...]],
    users: Mapping[str, int],
    sizes: Mapping[str, int],
) -> Report:
    store = workspace.store
    present = {oid for oid in sizes if store.has(oid)}
    rows = [
        _usage(each, [oid for oid in sizes if users[oid] >> number & 1], users, sizes, present)
        for number, each in enumerate(names)
    ]
    total = _usage(("all",), sizes, {}, sizes, present)
    others = (store.size(oid) or 0 for oid in store.oids() if oid not in sizes)
    rows.sort(key=lambda row: (-row.size, row.names))
    return Report(tuple(rows), total, sum(others))


def _usage(
    names: tuple[str, ...],
    oids: Iterable[str],
    users: Mapping[str, int],
    sizes: Mapping[str, int],
    present: set[str],
) -> Usage:
    needed = list(oids)
    own = (oid for oid in needed if users.get(oid, 1).bit_count() == 1)
    return Usage(
        names,
        len(needed),
        sum(sizes[oid] for oid in needed),
        sum(sizes[oid] for oid in own),
        sum(sizes[oid] for oid in needed if oid in present),
    )
