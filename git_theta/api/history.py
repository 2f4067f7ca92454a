"""The commits that changed checkpoints, and any version of one as a file."""

from __future__ import annotations

import os
from pathlib import Path

from git_theta import transfer
from git_theta.api.checkpoint import StrPath
from git_theta.api.opening import read_version
from git_theta.checkpoint.smudge import smudge_to
from git_theta.commands.log import Commit, history
from git_theta.core.files import atomic_file
from git_theta.errors import naming
from git_theta.git import Repository, revisions
from git_theta.workspace import open_workspace


def checkout(rev: str, path: StrPath, dest: StrPath, repo: StrPath = ".") -> None:
    """Write the checkpoint at ``path`` as it is at ``rev`` to the file ``dest``, byte for byte.

    ``path`` is relative to the folder ``repo``, ``dest`` to the current one. Missing objects are
    fetched first. The file appears whole, replacing an existing one, or not at all; index and work
    tree are not touched. Raises the errors of ``open`` and of reading, and ``StoreError`` if the
    file cannot be written.
    """
    name = os.fspath(path)
    with open_workspace(Path(repo)) as workspace:
        manifest = read_version(workspace.repo, rev, name)
        with naming(f"{rev}:{name}"):
            transfer.fetch(workspace, manifest.objects())
            with atomic_file(Path(dest)) as file:
                smudge_to(manifest, workspace.storage, file, name)


def log(
    path: StrPath | None = None,
    rev: str = "HEAD",
    repo: StrPath = ".",
    limit: int | None = None,
) -> list[Commit]:
    """Return the commits that changed a checkpoint (the one at ``path``), the latest first.

    ``rev`` is where to begin, or a range such as ``v1.0..main``. A path is followed through
    renames; it may be a pathspec, such as ``*.safetensors``. ``limit`` is how many commits to
    return at most. Each is compared with its first parent, from manifests alone.

    Raises ``NotARepositoryError``, and ``UsageError`` for a revision that does not exist.
    """
    with Repository.discover(Path(repo)) as opened:
        commits, _ = revisions.split(opened, [rev], [])
        paths = [] if path is None else [os.fspath(path)]
        return list(history(opened, commits, paths, limit))
