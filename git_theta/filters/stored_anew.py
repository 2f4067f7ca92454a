"""Versions that Git holds whole, or as LFS pointers, stored so that they can be merged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from git_theta import manifest
from git_theta.checkpoint.clean import clean
from git_theta.core.files import FileSource
from git_theta.errors import MissingObjectError
from git_theta.filters.lfs_content import content_of
from git_theta.git import Entry, Repository
from git_theta.git.blob_files import scratch_file
from git_theta.git.lfs_files import is_pointer
from git_theta.git.tracked import TrackedPaths
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace


def as_manifests(
    workspace: Workspace, path: str, texts: Sequence[bytes | None]
) -> list[bytes | None]:
    """Return versions of ``path`` as manifests, those that are none already stored as such.

    Each is stored as a difference to the others, where they are manifests. An empty file stays
    one. Raises ``MissingObjectError`` for a pointer whose object cannot be fetched.
    """
    others = [manifest.parse(text) for text in texts if text and manifest.is_manifest(text)]
    return [
        _stored(workspace, path, text, others) if text and not manifest.is_manifest(text) else text
        for text in texts
    ]


def has_left(repo: Repository, path: str, base: str | None, side: str | None) -> bool:
    """Return whether commit ``side`` does not track a path that its ancestor ``base`` tracked.

    A merge then untracks it, and a manifest would lie there as text.
    """
    if base is None or side is None:
        return False
    with TrackedPaths(repo) as tracked:
        at_base, at_side = (tracked.covers(Entry(path, "", commit=each)) for each in (base, side))
    return at_base and not at_side


def _stored(workspace: Workspace, path: str, text: bytes, others: Sequence[Manifest]) -> bytes:
    with ExitStack() as stack:
        file = stack.enter_context(scratch_file(workspace.repo.theta_dir / "tmp"))
        if is_pointer(text):
            file = _pointed(workspace, path, text)
        else:
            file.write_bytes(text)
        source = stack.enter_context(FileSource(file))
        return manifest.dump(clean(source, path, workspace.storage, others).manifest)


def _pointed(workspace: Workspace, path: str, pointer: bytes) -> Path:
    if file := content_of(workspace, pointer):
        return file
    raise MissingObjectError(
        "a version is a Git LFS pointer whose object is missing locally and on every remote",
        path=path,
        hint="git lfs fetch --all, or in a clone that has it: git lfs push --all REMOTE",
    )
