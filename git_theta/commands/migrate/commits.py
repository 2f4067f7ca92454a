"""Commits and annotated tags of a history, rewritten one after another, the oldest first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from git_theta.commands.migrate.trees import AddedLine, TreeRewriter
from git_theta.errors import GitError
from git_theta.git import Repository
from git_theta.git.command import decode
from git_theta.git.object_writer import ObjectWriter
from git_theta.git.raw_objects import links, relinked_commit, relinked_tag, tagged

_NESTED = 100


class Follower(Protocol):
    """Told of each commit before its tree is rewritten."""

    def move_to(self, parents: Sequence[str]) -> None:
        """Go on with a commit whose new parents are these."""
        ...


class HistoryRewriter:
    """Gives each commit its new tree and parents; all else in it stays, byte for byte.

    Commits that keep tree and parents keep their ids. ``commits`` is the new id of each, by its
    old one; ``signatures`` counts those that had to be dropped.
    """

    def __init__(
        self, repo: Repository, writer: ObjectWriter, trees: TreeRewriter, follower: Follower
    ) -> None:
        self._repo = repo
        self._writer = writer
        self._trees = trees
        self._follower = follower
        self._lines: dict[str, frozenset[AddedLine]] = {}
        self.commits: dict[str, str] = {}
        self.signatures = 0

    def rewrite(self, tips: Iterable[str]) -> None:
        """Rewrite all commits in the history of ``tips``, which are ids of commits."""
        order = ("rev-list", "--topo-order", "--reverse", "--stdin")
        listed = self._repo.git(*order, stdin="".join(f"{tip}\n" for tip in tips).encode())
        for commit in decode(listed).split():
            self.commits[commit] = self._rewrite(commit)

    def _rewrite(self, commit: str) -> str:
        raw = self._repo.load(commit)[1]
        tree, parents = links(raw)
        new_parents = [self._new(parent) for parent in parents]
        carried = frozenset[AddedLine]().union(*(self._lines[parent] for parent in parents))
        self._follower.move_to(new_parents)
        new_tree, self._lines[commit] = self._trees.rewrite(tree, carried)
        if new_tree == tree and new_parents == parents:
            return commit
        made, dropped = relinked_commit(raw, new_tree, self._new)
        self.signatures += dropped
        return self._writer.write("commit", made)

    def _new(self, parent: str) -> str:
        if parent not in self.commits:
            raise GitError(f"commit {parent} is not in this clone", hint="git fetch --unshallow")
        return self.commits[parent]

    def new_target(self, id_: str, depth: int = 0) -> str:
        """Return what a ref that named ``id_`` names now: a commit, or a tag of one.

        What is in no rewritten history stays.
        """
        if id_ in self.commits or depth > _NESTED:
            return self.commits.get(id_, id_)
        kind, raw = self._repo.load(id_)
        if kind != "tag":
            return id_
        old = tagged(raw)
        new = self.new_target(old, depth + 1)
        if new == old:
            return id_
        made, dropped = relinked_tag(raw, new)
        self.signatures += dropped
        return self._writer.write("tag", made)
