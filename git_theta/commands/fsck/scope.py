"""The checkpoints that a check looks at, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from git_theta.core.messages import plural, short_id
from git_theta.git import Entry, Repository, attributes, reachable, revisions, worktree
from git_theta.transfer.needs import tracked_manifests


@dataclass(frozen=True, slots=True)
class Found:
    """The text of a manifest; ``required`` if its objects must be here."""

    blob: str
    path: str
    text: bytes
    required: bool


class Scope:
    """The manifests of some revisions; without any, of all that this repository holds on to.

    A clone downloads the objects of what it checks out, and no others. So an object must be here
    if what is checked out or a revision that was asked for needs it, or anything that no remote
    has: a commit, a stash, an entry of a reflog. It is nowhere else then. With ``everything`` all
    must be here. ``skipped`` says what was not looked at.
    """

    def __init__(self, repo: Repository, revs: Sequence[str], everything: bool = False) -> None:
        self._repo = repo
        self._revs = revs
        self._everything = everything
        self._names: dict[str, list[str]] = {}
        self.skipped: list[str] = []

    def manifests(self) -> Iterator[Found]:
        """Yield each manifest once: those that are required first, the newest before older ones."""
        seen: set[str] = set()
        for required, entries in self._groups():
            for entry, text in tracked_manifests(self._repo, entries):
                if entry.blob not in seen:
                    seen.add(entry.blob)
                    yield Found(entry.blob, entry.path, text, required)

    def _groups(self) -> Iterator[tuple[bool, Iterable[Entry]]]:
        if self._revs:
            for rev in self._revs:
                tree = revisions.tree_of(self._repo, rev)
                yield True, self._named(rev, self._repo.tree(tree))
            return
        if (self._repo.common_dir / "shallow").exists():
            self.skipped.append("history before the commits with which this shallow clone begins")
        yield True, self._checked_out()
        # Without a remote, refs that a removed one has left prove nothing.
        pushed = ["--remotes"] if self._repo.remotes() else []
        yield True, reachable.staged(self._repo)
        yield True, reachable.all_entries(self._repo, pushed)
        yield self._everything, reachable.all_entries(self._repo)

    def _checked_out(self) -> list[Entry]:
        # All names first: a manifest is given once, but may stand in both.
        index = self._named("", self._repo.index())
        head = self._named("HEAD", self._repo.tree("HEAD"))
        absent = worktree.absent_blobs(self._repo)
        left_out = set() if self._everything else worktree.skipped(self._repo)
        # What is staged is nowhere else, whatever a sparse checkout leaves out.
        committed = {(entry.path, entry.blob) for entry in head}
        left_out &= {entry.path for entry in index if (entry.path, entry.blob) in committed}
        self._skip("a partial clone has not fetched", [e for e in head if e.blob in absent])
        self._skip("a sparse checkout leaves out", [e for e in head if e.path in left_out])
        current = (entry for entry in (*index, *head) if entry.blob not in absent)
        return [entry for entry in current if entry.path not in left_out]

    def _skip(self, why: str, entries: list[Entry]) -> None:
        filters = attributes.effective(self._repo, {entry.path for entry in entries})
        count = sum(name == "theta" for name in filters.values())
        if count:
            self.skipped.append(f"{plural(count, 'checkpoint')} that {why}")

    def _named(self, rev: str, entries: list[Entry]) -> list[Entry]:
        for entry in entries:
            stage = f"{entry.stage}:" if entry.stage else ""
            self._names.setdefault(entry.blob, []).append(f"{rev}:{stage}{entry.path}")
        return entries

    def names(self, found: Found) -> list[str]:
        """Return every place of a manifest, in git's words: ``:path`` is the index's.

        One that is in history only is named by the commit that brought it.
        """
        known = self._names.get(found.blob)
        return known or [f"{self._first_commit(found.blob)}:{found.path}"]

    def _first_commit(self, blob: str) -> str:
        search = ("--all", "--reflog", "-m", "--format=%h", f"--find-object={blob}")
        commits = self._repo.git("log", *search, check=False).split()
        return commits[-1].decode() if commits else short_id(blob)
