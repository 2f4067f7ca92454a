"""The commit that last changed each tensor of a checkpoint, from manifests alone.

As `git blame` does for lines: a tensor that a parent has with equal content comes from there,
whatever its name and that of the file were; what no parent has is the commit's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from git_theta import manifest
from git_theta.commands.diff.changes import compare_tensors, tensors_of
from git_theta.commands.listing import read_checkpoint
from git_theta.core.grouping import by_pattern
from git_theta.core.layout import natural_order
from git_theta.errors import ManifestError, UsageError
from git_theta.git import Repository, revisions
from git_theta.git.command import decode
from git_theta.manifest import Manifest

_FORMAT = "%H%x02%P%x02%aI%x02%an%x02%s"


@dataclass(frozen=True, slots=True)
class Author:
    """A commit, its parents, and who made it; ``date`` is ISO 8601, the author's."""

    commit: str
    parents: tuple[str, ...]
    date: str
    author: str
    subject: str


@dataclass(frozen=True, slots=True)
class Blame:
    """Tensors of one pattern that ``commit`` last changed, when the file was at ``path``.

    ``names`` are those that they had there. ``shares`` are what each parent of a merge
    contributed, where that was asked for and can be told.
    """

    name: str
    tensors: tuple[str, ...]
    commit: Author
    path: str
    names: tuple[str, ...]
    shares: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tensor comes from: a commit, and the names of file and tensor there."""

    commit: str
    path: str
    name: str


def blame(
    repo: Repository, rev: str, path: str, glob: str = "*", by_tensor: bool = False
) -> list[Blame]:
    """Return the commits that last changed the tensors of the checkpoint at ``path`` in ``rev``.

    Tensors of one pattern with one commit are one row. ``path`` is Git's. Raises ``ManifestError``
    where no checkpoint is there, ``UsageError`` where ``glob`` matches no tensor.
    """
    commit = revisions.commit_of(repo, rev)
    described = read_checkpoint(repo, f"{rev}:{path}")
    wanted = [name for name in tensors_of(described) if fnmatchcase(name, glob)]
    if not wanted:
        raise UsageError(f"no tensor of {path} matches {glob}", hint=f"git theta show {path}")
    origins = History(repo).origins(commit, path, wanted)
    authors = authors_of(repo, {origin.commit for origin in origins.values()})
    groups = (
        [(name, [name]) for name in sorted(wanted, key=natural_order)]
        if by_tensor
        else by_pattern(wanted, str, lambda name: (origins[name].commit, origins[name].path))
    )
    return [_row(pattern, names, origins, authors) for pattern, names in groups]


def _row(
    pattern: str, names: Sequence[str], origins: Mapping[str, Origin], authors: Mapping[str, Author]
) -> Blame:
    first = origins[names[0]]
    return Blame(
        name=names[0] if len(names) == 1 else pattern,
        tensors=tuple(names),
        commit=authors[first.commit],
        path=first.path,
        names=tuple(origins[name].name for name in names),
    )


class History:
    """Manifests of a checkpoint along the history of a repository."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._read = lru_cache(maxsize=8)(self._parse)

    def manifest(self, commit: str, path: str) -> Manifest | None:
        """Return the manifest at ``path`` in ``commit``, if one is there."""
        blob = self._blob(commit, path)
        return self._read(blob) if blob else None

    def _blob(self, commit: str, path: str) -> str | None:
        return self._repo.identify(f"{commit}:{path}")

    def _parse(self, blob: str) -> Manifest | None:
        text = self._repo.read_blob(blob)
        try:
            return manifest.parse(text) if text and manifest.is_manifest(text) else None
        except ManifestError:  # another file may begin like one
            return None

    def path_before(self, parent: str, commit: str, path: str) -> str:
        """Return where ``parent`` has the file that ``commit`` has at ``path``."""
        if self._blob(parent, path):
            return path
        options = ("-r", "-M", "-z", "--name-status", "--diff-filter=R")
        fields = decode(self._repo.git("diff-tree", *options, parent, commit)).split("\0")
        renamed = zip(fields[1::3], fields[2::3], strict=False)  # <status> <old> <new>
        return next((old for old, new in renamed if new == path), path)

    def origins(self, commit: str, path: str, names: Iterable[str]) -> dict[str, Origin]:
        """Return where each of these tensors of ``commit`` comes from."""
        listed = decode(self._repo.git("rev-list", "--topo-order", "--parents", commit))
        # By commit: today's names of the tensors that it has, and where.
        pending = {commit: {name: Origin(commit, path, name) for name in names}}
        found: dict[str, Origin] = {}
        # Every commit comes before its parents.
        for line in listed.splitlines():
            here, *parents = line.split(" ")
            rest = pending.pop(here, {})
            for parent in parents if rest else ():
                passed = self._passed(parent, rest)
                pending.setdefault(parent, {}).update(passed)
                rest = {name: origin for name, origin in rest.items() if name not in passed}
            found.update(rest)
            if not pending:
                break
        return found

    def _passed(self, parent: str, wanted: Mapping[str, Origin]) -> dict[str, Origin]:
        """Return those of ``wanted`` that the parent has as well, as they are there."""
        passed = {}
        for commit, path in {(origin.commit, origin.path) for origin in wanted.values()}:
            before = self.path_before(parent, commit, path)
            names = self._names(self.manifest(parent, before), self.manifest(commit, path))
            passed.update(
                {
                    name: Origin(parent, before, names[origin.name])
                    for name, origin in wanted.items()
                    if origin.path == path and origin.name in names
                }
            )
        return passed

    @staticmethod
    def _names(old: Manifest | None, new: Manifest | None) -> dict[str, str]:
        """Return the tensors of ``new`` that ``old`` has, by name, and their names there."""
        if old is None:
            return {}
        if old is new:  # the same blob, which most commits of a history leave as it is
            return {name: name for name in tensors_of(new)}
        changed = {change.name: change for change in compare_tensors(old, new) if change.new}
        same = {name: name for name in tensors_of(new) if name not in changed}
        renamed = {
            name: change.old.name
            for name, change in changed.items()
            if change.kind == "renamed" and change.old
        }
        return same | renamed


def authors_of(repo: Repository, commits: Iterable[str]) -> dict[str, Author]:
    """Return who made each of these commits, and when."""
    ids = "".join(f"{commit}\n" for commit in sorted(commits)).encode()
    options = ("--no-walk=unsorted", "--no-show-signature", "-z", f"--format={_FORMAT}")
    listed = decode(repo.git("log", *options, "--stdin", stdin=ids))
    rows = (record.split("\2", 4) for record in listed.split("\0") if record)
    return {
        commit: Author(commit, tuple(parents.split()), date, author, subject)
        for commit, parents, date, author, subject in rows
    }
