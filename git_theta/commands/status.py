"""How the checkpoints of HEAD, the index and the work tree differ, tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from git_theta import manifest
from git_theta.commands.comparison import Difference, State, compare, contents, state_of, there
from git_theta.commands.readable import Tell, readable
from git_theta.core.models import models
from git_theta.git import Entry, Repository, conflict, worktree
from git_theta.git.worktree import FileStatus, require_work_tree
from git_theta.manifest import Manifest
from git_theta.store import ObjectStore

WorkState = Literal["clean", "modified", "missing", "manifest", "sparse"]
_NOTHING = Difference(0, 0, 0, 0, 0)
_NONE = frozenset[str]()


@dataclass(frozen=True, slots=True)
class Conflict:
    """A merge that stopped: ``tensors`` were changed by both sides, each in its own way.

    ``ours`` and ``theirs`` are what the user calls the sides; ``only_in`` is the one that alone
    has the checkpoint, where the other deleted or renamed it.
    """

    tensors: int
    ours: str
    theirs: str
    only_in: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """One checkpoint: its tensors staged against HEAD, and its file in the work tree.

    ``before`` is its path in HEAD.
    ``missing`` is the number of objects that are not here and that the work tree needs. Files
    that a sparse checkout leaves out are looked at only where they are staged.
    """

    path: str
    before: str
    staged: State
    work_tree: WorkState
    difference: Difference
    missing: int
    conflict: Conflict | None = None


@dataclass(frozen=True, slots=True)
class ModelChange:
    """A model in several files, staged against HEAD as one, however it is cut.

    ``path`` is the one that it would have in a single file; ``files`` are those of the index and
    those that were deleted from it.
    """

    path: str
    files: tuple[str, ...]
    staged: State
    difference: Difference


def changes(repo: Repository, tell: Tell) -> tuple[list[Change], list[ModelChange]]:
    """Return a row for each checkpoint in HEAD or the index, and for each model in several.

    Both are ordered by path.

    ``tell`` gets the error of each manifest that cannot be read. Raises ``UsageError`` where there
    is no work tree.
    """
    top = require_work_tree(repo, "status", "git theta ls-files HEAD")
    status = _Status(repo, top, tell)
    rows = sorted(status.rows(), key=lambda row: row.path)
    return rows, list(status.models(rows))


class _Status:
    """The answers of git, and each manifest that they name, parsed once."""

    def __init__(self, repo: Repository, top: Path, tell: Tell) -> None:
        self._repo = repo
        self._top = top
        self._store = ObjectStore(repo.theta_dir)
        self._touched = {file.path: file for file in worktree.status(repo)}
        self._sparse = worktree.skipped(repo)
        self._index = [entry for entry in repo.index() if entry.stage == 0]
        self._manifests = dict(self._parsed(tell))

    def _parsed(self, tell: Tell) -> Iterator[tuple[str, Manifest]]:
        """Yield the manifests of the checkout, without those that a sparse checkout leaves out."""
        entries = [entry for entry in self._index if entry.path not in self._sparse]
        for file in self._touched.values():
            entries += [Entry(file.path, blob) for blob in file.blobs if blob]
        unique = {entry.blob: entry for entry in entries}
        for entry, found in readable(self._repo, unique.values(), tell):
            yield entry.blob, found

    def rows(self) -> Iterator[Change]:
        """Return the checkpoints that differ somewhere, then the others of the index."""
        for file in self._touched.values():
            versions = [self._manifests.get(blob) if blob else None for blob in file.blobs]
            if any(versions) and file.in_conflict:
                yield self._conflict(file, versions)
            elif any(versions):
                yield self._row(file.path, file.before, versions[0], versions[1])
        for entry in self._index:
            if entry.path not in self._touched and (found := self._manifests.get(entry.blob)):
                yield self._row(entry.path, entry.path, found, found)

    def models(self, rows: Sequence[Change]) -> Iterator[ModelChange]:
        """Yield the models in several files, but for those of which one is in conflict."""
        head, index = self._blobs()
        before, after = self._by_model(head), self._by_model(index)
        for path in sorted(before.keys() | after.keys()):
            old, new = before.get(path, _NONE), after.get(path, _NONE)
            if len(old | new) < 2:
                continue
            of_it = [row for row in rows if row.before in old or row.path in new]
            if len(of_it) > 1 and not any(row.conflict for row in of_it):
                versions = (self._found(head, old), self._found(index, new))
                yield _model_change(path, of_it, *versions)

    def _blobs(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the files of HEAD and of the index, by path, as far as they are checked out."""
        here = (entry for entry in self._index if entry.path not in self._sparse)
        index = {entry.path: entry.blob for entry in here}
        head = {path: blob for path, blob in index.items() if path not in self._touched}
        staged = (file for file in self._touched.values() if not file.in_conflict)
        head |= {file.before: file.blobs[0] for file in staged if file.blobs[0]}
        return head, index

    def _by_model(self, blobs: Mapping[str, str]) -> dict[str, frozenset[str]]:
        found = models(blobs.keys(), lambda path: self._repo.read_blob(blobs[path]))
        return {path: frozenset(files) for path, files in found.items()}

    def _found(self, blobs: Mapping[str, str], files: Iterable[str]) -> list[Manifest]:
        return there(*(self._manifests.get(blobs[file]) for file in files))

    def _row(self, path: str, before: str, head: Manifest | None, index: Manifest | None) -> Change:
        state = state_of(head, index, renamed=before != path)
        work_tree = self._work_state(path)
        return Change(
            path=path,
            before=before,
            staged=state,
            work_tree=work_tree,
            difference=compare(there(head), there(index)),
            # A manifest in the work tree is to be checked out, which fetches.
            missing=0 if work_tree in ("sparse", "manifest") else self._missing(index),
        )

    def _missing(self, index: Manifest | None) -> int:
        return sum(not self._store.has(oid) for oid in index.objects()) if index else 0

    def _conflict(self, file: FileStatus, versions: Sequence[Manifest | None]) -> Change:
        names = conflict.sides(self._repo)
        have = [name for name, blob in zip(names, file.blobs[1:], strict=True) if blob]
        alone = None if len(have) == len(names) else (*have, "the common ancestor")[0]
        return Change(
            path=file.path,
            before=file.path,
            staged="conflict",
            work_tree=self._work_state(file.path),
            difference=_NOTHING,
            missing=0,
            conflict=Conflict(_contested(versions), *names, only_in=alone),
        )

    def _work_state(self, path: str) -> WorkState:
        if path in self._sparse:
            return "sparse"
        file = self._touched.get(path)
        if file and "D" in (file.work_tree, file.staged):
            return "missing" if file.work_tree == "D" and not file.in_conflict else "clean"
        if _is_manifest(self._top / path):
            return "manifest"
        touched = file and file.work_tree != "." and not file.in_conflict
        return "modified" if touched else "clean"


def _model_change(
    path: str, rows: Sequence[Change], before: Sequence[Manifest], after: Sequence[Manifest]
) -> ModelChange:
    changed = any(row.staged != "unchanged" for row in rows)
    state: State = "modified" if before and after else "added" if after else "deleted"
    files = tuple(row.path for row in rows)
    return ModelChange(path, files, state if changed else "unchanged", compare(before, after))


def _contested(versions: Sequence[Manifest | None]) -> int:
    """Count the tensors that both sides changed, added or removed, and not alike."""
    found = [contents(version) for version in versions]  # the base's, ours, theirs
    names = set[str]().union(*found)
    return sum(len({version.get(name) for version in found}) == len(found) for name in names)


def _is_manifest(file: Path) -> bool:
    """Return whether a manifest lies where its checkpoint should; a link is never followed.

    Git takes a file that may not be read for modified.
    """
    if file.is_symlink() or not file.is_file():
        return False
    with suppress(PermissionError), file.open("rb") as reader:
        return manifest.is_manifest(reader.read(16))
    return False
