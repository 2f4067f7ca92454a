"""Bytes that checkpoints, commits, branches and tags need, alone and together with others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from git_theta.commands.usage import Report, Users
from git_theta.core.messages import plural, short_id
from git_theta.git import Repository, ref_updates
from git_theta.git.command import decode
from git_theta.git.raw_objects import parse_tree
from git_theta.transfer.needs import Warn, history_entries, read_manifests
from git_theta.workspace import Workspace

_REFS = ("refs/heads/", "refs/tags/", "refs/remotes/")


def of_commit(workspace: Workspace, rev: str, warn: Warn, remote: str | None = None) -> Report:
    """Return what each checkpoint in the tree of ``rev``, an id, needs."""
    users, files = Users(), workspace.repo.tree(rev)
    needs = {
        entry.blob: users.read(found)
        for entry, found in read_manifests(workspace.repo, files, warn)
    }
    paths = [entry for entry in files if entry.blob in needs]
    for number, entry in enumerate(paths):
        users.need(needs[entry.blob], 1 << number)
    return _largest_first(users.report(workspace, [(entry.path,) for entry in paths], remote))


def of_history(workspace: Workspace, rev: str, warn: Warn, remote: str | None = None) -> Report:
    """Return what each commit in the history of ``rev``, an id, needs, the newest first.

    Commits with the same checkpoints stand in one row.
    """
    repo, users = workspace.repo, Users()
    entries = history_entries(repo, [rev])
    needs = {entry.blob: users.read(found) for entry, found in read_manifests(repo, entries, warn)}
    trees, alike = _Trees(repo, needs), dict[frozenset[str], list[str]]()
    log = ("log", "-z", "--no-show-signature", "--format=tformat:%H %T %s", rev, "--")
    for line in decode(repo.git(*log)).split("\0")[:-1]:
        commit, tree, subject = line.split(" ", 2)
        if manifests := trees.blobs(tree):
            alike.setdefault(manifests, []).append(f"{short_id(commit)} {subject}")
    for number, manifests in enumerate(alike):
        for blob in manifests:
            users.need(needs[blob], 1 << number)
    return users.report(workspace, [_first(titles) for titles in alike.values()], remote)


def of_refs(workspace: Workspace, warn: Warn, remote: str | None = None) -> Report:
    """Return what the history of each branch and tag needs, remote-tracking branches included.

    History is walked once: each commit knows the refs that it is in, and an object those of all
    commits that brought it.
    """
    repo, users = workspace.repo, Users()
    tips = _tips(repo)
    members = _members(repo, list(tips))
    entries = list(history_entries(repo, tips))
    needs = {entry.blob: users.read(found) for entry, found in read_manifests(repo, entries, warn)}
    for entry in entries:
        users.need(needs.get(entry.blob, ()), members[entry.commit or ""])
    return _largest_first(users.report(workspace, list(tips.values()), remote))


class _Trees:
    """The blobs among ``wanted`` that trees hold; a folder that occurs again is read once."""

    def __init__(self, repo: Repository, wanted: Mapping[str, object]) -> None:
        self._repo = repo
        self._wanted = wanted
        self._known: dict[str, frozenset[str]] = {}

    def blobs(self, tree: str) -> frozenset[str]:
        """Return those below a tree, given by its id."""
        if tree not in self._known:
            entries = parse_tree(self._repo.load(tree)[1], len(tree))
            own = {entry.id for entry in entries if entry.id in self._wanted}
            below = (self.blobs(entry.id) for entry in entries if entry.is_tree)
            self._known[tree] = frozenset(own.union(*below))
        return self._known[tree]


def _first(titles: Sequence[str]) -> tuple[str, ...]:
    """Return the commit that brought something, and how many kept it."""
    *kept, first = titles
    return (first, f"{plural(len(kept), 'commit')} after it") if kept else (first,)


def _largest_first(report: Report) -> Report:
    rows = sorted(report.rows, key=lambda row: (-row.size, row.names))
    return Report(tuple(rows), report.total, report.unneeded, report.unused)


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
