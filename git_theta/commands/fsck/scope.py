"""Which checkpoints to check, and how to name them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from git_theta.git import Entry, Repository, revisions


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
    if the index, HEAD or a revision that was asked for needs it, or a commit that is on no
    remote: it is nowhere else then.
    """

    def __init__(self, repo: Repository, revs: Sequence[str]) -> None:
        self._repo = repo
        self._revs = revs
        self._names: dict[str, list[str]] = {}

    def manifests(self) -> Iterator[Found]:
        """Each manifest once, the newest first, those that are required before the others."""
        seen: set[str] = set()
        for required, entries in self._groups():
            for entry, text in self._repo.manifests(entries):
                if entry.blob not in seen:
                    seen.add(entry.blob)
                    yield Found(entry.blob, entry.path, text, required)

    def _groups(self) -> Iterator[tuple[bool, Iterable[Entry]]]:
        if self._revs:
            for rev in self._revs:
                tree = revisions.tree_of(self._repo, rev)
                yield True, self._named(rev, self._repo.tree(tree))
            return
        # All names first: a manifest is given once, but may stand in both.
        current = [
            *self._named("", self._repo.index()),
            *self._named("HEAD", self._repo.tree("HEAD")),
        ]
        yield True, current
        head = ["HEAD"] if self._repo.resolve("HEAD") else []
        yield True, self._repo.range_entries(["--all", *head], ["--remotes"])
        yield False, self._repo.all_entries()

    def _named(self, rev: str, entries: list[Entry]) -> list[Entry]:
        for entry in entries:
            stage = f"{entry.stage}:" if entry.stage else ""
            self._names.setdefault(entry.blob, []).append(f"{rev}:{stage}{entry.path}")
        return entries

    def names(self, found: Found) -> list[str]:
        """Every place of a manifest, in git's words: ``:path`` is the index's.

        One that is in history only is named by the commit that brought it.
        """
        known = self._names.get(found.blob)
        return known or [f"{self._first_commit(found.blob)}:{found.path}"]

    def _first_commit(self, blob: str) -> str:
        search = ("--all", "--reflog", "-m", "--format=%h", f"--find-object={blob}")
        commits = self._repo.git("log", *search, check=False).split()
        return commits[-1].decode() if commits else blob[:12]
