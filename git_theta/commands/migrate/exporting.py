"""From manifests back to LFS objects, or to plain files in Git."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from git_theta import manifest
from git_theta.checkpoint.limits import Allowance
from git_theta.checkpoint.smudge import smudge_to
from git_theta.commands.migrate.attributes import LFS, PLAIN, THETA
from git_theta.commands.migrate.journal import Journal
from git_theta.core.files import link_or_copy, sync_path
from git_theta.core.progress import NullProgress, Progress
from git_theta.errors import CorruptObjectError, naming
from git_theta.git.blob_files import git_blob, scratch_file
from git_theta.git.lfs import Lfs
from git_theta.git.lfs_files import LONGEST
from git_theta.git.lfs_storage import has_size
from git_theta.git.object_writer import ObjectWriter
from git_theta.git.pointers import parse_pointer, pointer_text
from git_theta.workspace import Workspace

_PIECE = 4 << 20


class Export:
    """Converts the manifests of one history.

    ``places`` says, for the blob of each manifest, which path and commit have it. Files go to
    git-lfs's storage, or, where they become ``plain``, to Git.
    """

    source, only_tracked = THETA, True

    def __init__(
        self,
        workspace: Workspace,
        writer: ObjectWriter,
        places: Mapping[str, str],
        journal: Journal,
        progress: Progress,
        plain: bool,
    ) -> None:
        self.target = PLAIN if plain else LFS
        self._repo = workspace.repo
        self._storage = workspace.storage
        self._writer = writer
        self._places = places
        self._journal = journal
        self._progress = progress
        self._lfs = Lfs(workspace.repo)
        self.done: dict[str, str] = {}
        self.objects: dict[str, int] = {}
        """Objects of Git LFS that the pointers name: oid to bytes."""

    def move_to(self, parents: Sequence[str]) -> None:
        """Go on with another commit: nothing depends on it."""

    def convert(self, path: str, blob: str) -> str:
        """Return the blob of the pointer or the file; another blob than a manifest's as it is."""
        if blob not in self._places:
            return blob
        if blob not in self.done:
            self.done[blob] = self._known(blob) or self._convert(blob)
        return self.done[blob]

    def _known(self, blob: str) -> str | None:
        """Return what an earlier run made, if it is still here."""
        new = self._journal.get(blob)
        if new is None or self._repo.resolve(new) is None:
            return None
        if not self.target.name:
            return new
        pointer = parse_pointer(self._repo.read_blob(new, LONGEST) or b"")
        if pointer is None or not has_size(self._lfs.media_path(pointer[0]), pointer[1]):
            return None
        self.objects[pointer[0]] = pointer[1]
        self._progress.advance(pointer[1])
        return new

    def _convert(self, blob: str) -> str:
        with naming(self._places[blob]), scratch_file(self._storage.store.root / "tmp") as path:
            described = manifest.parse(self._repo.read_blob(blob) or b"")
            storage = replace(self._storage, progress=NullProgress(), allowance=Allowance())
            with path.open("r+b") as file:
                smudge_to(described, storage, file, self._places[blob])
            new = self._to_lfs(path) if self.target.name else self._to_git(path, described.size)
        self._progress.advance(described.size)
        self._journal.add(blob, new)
        return new

    def _to_git(self, file: Path, size: int) -> str:
        new = self._writer.write_file("blob", file)
        if self._hash(file, git_blob(new, size)) != new:
            raise CorruptObjectError("Git stored other bytes than it was given", hint="git fsck")
        return new

    def _to_lfs(self, file: Path) -> str:
        oid, size = self._hash(file, hashlib.sha256()), file.stat().st_size
        target = self._lfs.media_path(oid)
        if not has_size(target, size):
            sync_path(file)
            link_or_copy(file, target)
        if self._hash(target, hashlib.sha256()) != oid:
            raise CorruptObjectError(
                "git-lfs's storage has other bytes under this name",
                path=str(target),
                hint="remove the file, then run this again",
            )
        self.objects[oid] = size
        return self._writer.write("blob", pointer_text(oid, size))

    @staticmethod
    def _hash(file: Path, digest: hashlib._Hash) -> str:
        with file.open("rb") as reader:
            while piece := reader.read(_PIECE):
                digest.update(piece)
        return digest.hexdigest()
