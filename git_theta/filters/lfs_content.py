"""The files that LFS pointers stand for, where one lies under a path that is ours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from git_theta.errors import ThetaError
from git_theta.git.lfs import Lfs
from git_theta.git.lfs_files import target_of
from git_theta.git.lfs_storage import has_size
from git_theta.git.remotes import fetch_remote
from git_theta.workspace import Workspace

_PIECE = 4 << 20


def content_of(workspace: Workspace, pointer: bytes) -> Path | None:
    """Return git-lfs's file of what ``pointer`` stands for, fetched where it is not here.

    ``None`` where it cannot be fetched, or is damaged.
    """
    target = target_of(pointer)
    if target is None:
        return None
    oid, size = target
    with suppress(ThetaError):  # without git-lfs, or without a network
        lfs = Lfs(workspace.repo)
        file = lfs.media_path(oid)
        for name in workspace.repo.remotes():
            if has_size(file, size):
                break
            with suppress(ThetaError):
                remote = fetch_remote(workspace.repo, name)
                lfs.obtain({oid: size}, remote, workspace.storage.progress)
        if has_size(file, size) and _hash(file) == oid:
            return file
    return None


def pieces_of(file: Path) -> Iterator[bytes]:
    """Yield the bytes of ``file``."""
    with file.open("rb") as reader:
        while piece := reader.read(_PIECE):
            yield piece


def _hash(file: Path) -> str:
    digest = hashlib.sha256()
    for piece in pieces_of(file):
        digest.update(piece)
    return digest.hexdigest()
