"""From plain files and LFS objects to manifests, each decoded again and compared."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from git_theta import manifest
from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.limits import Allowance
from git_theta.checkpoint.smudge import smudge
from git_theta.commands.migrate.attributes import LFS, THETA
from git_theta.commands.migrate.bases import ParentCheckpoints
from git_theta.commands.migrate.journal import Journal
from git_theta.commands.migrate.versions import Version
from git_theta.core.files import FileSource
from git_theta.core.messages import short_id
from git_theta.core.progress import Progress
from git_theta.errors import CorruptObjectError, naming
from git_theta.git.blob_files import git_blob, spooled
from git_theta.git.lfs import Lfs
from git_theta.git.object_writer import ObjectWriter
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace

_NO_LIMIT = 1 << 62


class Import:
    """Converts the versions of one history, the older ones first.

    ``versions`` are those that may be met, by blob. ``warn`` is told what is odd about a file.
    """

    source, target, only_tracked = LFS, THETA, False

    def __init__(
        self,
        workspace: Workspace,
        writer: ObjectWriter,
        versions: Mapping[str, Version],
        journal: Journal,
        progress: Progress,
        warn: Callable[[str], None],
    ) -> None:
        self._repo = workspace.repo
        self._storage = workspace.storage
        self._writer = writer
        self._versions = versions
        self._journal = journal
        self._progress = progress
        self._warn = warn
        self._warned: set[str] = set()
        self._parents = ParentCheckpoints(workspace.repo)
        self._lfs = Lfs(workspace.repo)
        self.done: dict[str, str] = {}
        self.objects: dict[str, int] = {}
        """Objects that the manifests name: oid to bytes."""

    def move_to(self, parents: Sequence[str]) -> None:
        """Go on with a commit whose new parents are these."""
        self._parents.move_to(parents)

    def convert(self, path: str, blob: str) -> str:
        """Return the manifest's blob; another blob as it is."""
        version = self._versions.get(blob)
        if version is None:
            return blob
        if blob not in self.done:
            self.done[blob] = self._known(blob) or self._convert(version)
        return self.done[blob]

    def _known(self, blob: str) -> str | None:
        """Return what an earlier run made, if all of it is still here and whole."""
        new = self._journal.get(blob)
        text = self._repo.read_blob(new) if new else None
        if text is None:
            return None
        objects = manifest.parse(text).objects() if text else {}
        if self._storage.unsound(objects):
            self._journal.forget(blob)
            return None
        self._storage.store.touch(objects)
        self.objects.update(objects)
        self._progress.advance(2 * self._versions[blob].size)
        return new

    def _convert(self, version: Version) -> str:
        with naming(version.place), self._content(version) as file:
            made = self._store(version, file)
        # A pointer to nothing stands for an empty file, whose blob is empty.
        new = self._writer.write("blob", manifest.dump(made) if made else b"")
        self._journal.add(version.blob, new)
        return new

    def _content(self, version: Version) -> AbstractContextManager[Path]:
        """Return a file with the version's bytes: git-lfs's object, or a copy of Git's blob."""
        if version.oid:
            return nullcontext(self._lfs.media_path(version.oid))
        return spooled(self._repo, version.blob, self._storage.store.root / "tmp")

    def _store(self, version: Version, file: Path) -> Manifest | None:
        if not version.size:
            return None
        # Each version is paid for by its own bytes, and what was just stored may be decoded.
        settings = replace(self._storage.settings, expand_limit=_NO_LIMIT)
        storage = replace(
            self._storage, settings=settings, progress=_Part(self._progress), allowance=Allowance()
        )
        with FileSource(file) as source:
            cleaned = clean(source, version.path, storage, self._parents.of(version.path))
        if cleaned.warning and version.path not in self._warned:
            self._warned.add(version.path)
            self._warn(f"{version.path}: {cleaned.warning}")
        self._verify(version, file, cleaned.manifest, storage)
        self.objects.update(cleaned.manifest.objects())
        return cleaned.manifest

    def _verify(
        self, version: Version, file: Path, made: Manifest, storage: StorageContext
    ) -> None:
        """Decode what was stored, and compare it with what the old history names."""
        digest = hashlib.sha256() if version.oid else git_blob(version.blob, made.size)
        for piece in smudge(made, storage, version.path):
            digest.update(piece)
        if digest.hexdigest() != (version.oid or version.blob):
            raise CorruptObjectError(
                f"the file of object {short_id(version.oid or version.blob)} has other bytes than "
                "its name says; nothing was changed",
                path=version.place,
                hint="git lfs fsck; git lfs fetch --all, then run this again",
                details=[str(file)] if version.oid else (),
            )


class _Part:
    """The progress of one version as part of the whole."""

    def __init__(self, whole: Progress) -> None:
        self._whole = whole

    def start(self, what: str, total: int) -> None:
        """Ignore."""

    def advance(self, count: int) -> None:
        """Count for the whole."""
        self._whole.advance(count)

    def finish(self) -> None:
        """Ignore."""
