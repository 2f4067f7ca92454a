"""A state dict in memory, committed as a checkpoint without a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from git_theta import manifest
from git_theta.api.checkpoint import StrPath
from git_theta.api.state_dicts import StateDictSource, is_torch
from git_theta.checkpoint import clean
from git_theta.checkpoint.parents import Parent
from git_theta.errors import UsageError, naming
from git_theta.filters.parents import KnownCheckpoints
from git_theta.git import Entry, Repository, branch_commit, revisions
from git_theta.git.tracked import TrackedPaths
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace, open_workspace

_SUFFIX = ".safetensors"


def commit_state_dict(
    state: Mapping[str, Any],
    path: StrPath,
    message: str,
    branch: str | None = None,
    repo: StrPath = ".",
    *,
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Commit tensors as the safetensors file ``path`` of a branch; return the commit's id.

    ``state`` maps names to dense tensors of torch, on any device, or arrays of numpy. They are
    copied one at a time while they are stored, each against the branch's version: do not change
    them before this returns. ``metadata`` is the file's, ``{"format": "pt"}`` for tensors of torch.

    ``branch`` is the current one by default; a new one begins at HEAD. No file is written and no
    hook runs. Where the branch is checked out in ``repo``, the index follows, and `git restore`
    brings the file. Where the branch has that very file, it stays where it is.

    Raises ``UsageError`` for a value that is no tensor, a path that does not end in
    ``.safetensors`` or that git-theta does not track on the branch, and for a branch that is
    checked out in another work tree; ``StoreError`` and ``GitError``. Nothing is committed then.
    """
    if metadata is None and any(map(is_torch, state.values())):
        metadata = {"format": "pt"}
    source = StateDictSource(state, metadata)
    with open_workspace(Path(repo)) as workspace:
        name = revisions.path_in(workspace.repo, os.fspath(path))
        with naming(name):
            tip = branch_commit.find_tip(workspace.repo, branch)
            _check_path(workspace.repo, name, tip.parent)
            text = _stored(workspace, source, name, tip.parent)
            return branch_commit.commit_file(workspace.repo, branch, name, text, message)


def _check_path(repo: Repository, path: str, commit: str) -> None:
    if not path.endswith(_SUFFIX):
        raise UsageError(f"a state dict is committed as a file that ends in {_SUFFIX}")
    with TrackedPaths(repo) as tracked:
        if not tracked.covers(Entry(path, "", commit=commit)):
            raise UsageError(
                f"{commit[:12]} does not track it with git-theta",
                hint='git theta track "*.safetensors", then commit .gitattributes there',
            )


def _stored(workspace: Workspace, source: StateDictSource, path: str, commit: str) -> bytes:
    """Return the text of the manifest, the one that the branch has where the file is the same."""
    known = KnownCheckpoints(workspace.repo)
    before = workspace.repo.read_blob(f"{commit}:{path}") or b""
    texts = [text for text in (before, *known.texts(path)) if manifest.is_manifest(text)]
    cleaned = clean(source, path, workspace.storage, known.parents(path, texts))
    if cleaned.manifest.format != "safetensors":
        raise UsageError(f"these tensors make no safetensors file: {cleaned.warning}")
    parent = known.parent(before) if before else None
    kept = _is_kept(workspace, parent, cleaned.manifest)
    return before if kept else manifest.dump(cleaned.manifest)


def _is_kept(workspace: Workspace, parent: Parent | None, made: Manifest) -> bool:
    """Tell whether the branch has this very file, and all objects of its manifest are here."""
    return (
        parent is not None
        and parent.manifest.hash == made.hash
        and not workspace.storage.unsound(parent.manifest.objects())
    )
