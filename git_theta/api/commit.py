"""State dicts in memory, and files from anywhere, committed without the work tree."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from git_theta import manifest
from git_theta.api.checkpoint import StrPath
from git_theta.api.state_dicts import StateDictSource, is_torch
from git_theta.checkpoint.clean import Cleaned, clean
from git_theta.checkpoint.parents import Parent
from git_theta.core.files import FileSource
from git_theta.core.layout import Source
from git_theta.errors import UsageError, naming
from git_theta.filters.parents import KnownCheckpoints
from git_theta.git import Entry, Repository, branch_commit, revisions
from git_theta.git.tracked import TrackedPaths
from git_theta.manifest import Manifest
from git_theta.workspace import Workspace, open_workspace

_SUFFIX = ".safetensors"
# Bytes of a file that Git holds as it is.
_PLAIN = 16 << 20


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
    hook runs. If the branch is checked out in ``repo``, the index follows, and `git restore`
    restores the file. If the branch already has exactly this file, it does not move.

    Raises ``UsageError`` for a value that is not a tensor, a path that does not end in
    ``.safetensors`` or that git-theta does not track on the branch, and for a branch that is
    checked out in another work tree; ``StoreError`` and ``GitError``. Nothing is committed then.
    """
    if metadata is None and any(map(is_torch, state.values())):
        metadata = {"format": "pt"}
    source = StateDictSource(state, metadata)
    with open_workspace(Path(repo)) as workspace:
        name = revisions.path_in(workspace.repo, os.fspath(path))
        with naming(name):
            if not name.endswith(_SUFFIX):
                raise UsageError(f"a state dict is committed as a file that ends in {_SUFFIX}")
            tip = branch_commit.find_tip(workspace.repo, branch)
            if not _is_tracked(workspace.repo, name, tip.parent):
                raise _not_tracked(tip.parent)
            cleaned, text = _stored(workspace, source, name, tip.parent)
            if cleaned.manifest.format != "safetensors":
                what = f"these tensors cannot be saved as safetensors: {cleaned.warning}"
                raise UsageError(what)
            return branch_commit.commit_files(workspace.repo, branch, {name: text}, message)


def commit_files(
    files: Mapping[StrPath, StrPath],
    message: str,
    branch: str | None = None,
    repo: StrPath = ".",
) -> str:
    """Commit files from anywhere on disk, by their paths in the repository; return the commit's id.

    ``files`` maps paths, relative to the folder ``repo``, to files, relative to the current one.
    Those that the branch tracks with git-theta are stored by it; others are committed as they are,
    up to 16 MiB. The rest is as in ``commit_state_dict``: no file is written, and no hook runs.
    """
    with ExitStack() as stack:
        sources = open_sources(stack, files)
        return commit_sources(sources, message, branch, repo)


def open_sources(stack: ExitStack, files: Mapping[StrPath, StrPath]) -> dict[str, FileSource]:
    """Open files that are to be committed: they may be deleted before they are."""
    sources = {}
    for path, file in files.items():
        with naming(os.fspath(file)):
            try:
                sources[os.fspath(path)] = stack.enter_context(FileSource(Path(file)))
            except OSError as error:
                raise UsageError(f"cannot be read: {error.strerror}") from error
    return sources


def commit_sources(
    sources: Mapping[str, Source], message: str, branch: str | None, repo: StrPath
) -> str:
    """Commit open files; see ``commit_files``."""
    with open_workspace(Path(repo)) as workspace:
        tip = branch_commit.find_tip(workspace.repo, branch)
        texts = {}
        for path, source in sources.items():
            name = revisions.path_in(workspace.repo, path)
            with naming(name):
                texts[name] = _content(workspace, source, name, tip.parent)
        return branch_commit.commit_files(workspace.repo, branch, texts, message)


def _content(workspace: Workspace, source: Source, path: str, commit: str) -> bytes:
    """Return what Git is to hold of a file."""
    if _is_tracked(workspace.repo, path, commit):
        return _stored(workspace, source, path, commit)[1]
    if source.size > _PLAIN:
        raise _not_tracked(commit)
    return source.read(0, source.size)


def _is_tracked(repo: Repository, path: str, commit: str) -> bool:
    with TrackedPaths(repo) as tracked:
        return tracked.covers(Entry(path, "", commit=commit))


def _not_tracked(commit: str) -> UsageError:
    return UsageError(
        f"{commit[:12]} does not track it with git-theta",
        hint='git theta track "*.safetensors", then commit .gitattributes there',
    )


def _stored(workspace: Workspace, source: Source, path: str, commit: str) -> tuple[Cleaned, bytes]:
    """Return the text of the manifest, the one that the branch has where the file is the same."""
    known = KnownCheckpoints(workspace.repo)
    before = workspace.repo.read_blob(f"{commit}:{path}") or b""
    texts = [text for text in (before, *known.texts(path)) if manifest.is_manifest(text)]
    cleaned = clean(source, path, workspace.storage, known.parents(path, texts))
    parent = known.parent(before) if before else None
    kept = _is_kept(workspace, parent, cleaned.manifest)
    return cleaned, before if kept else manifest.dump(cleaned.manifest)


def _is_kept(workspace: Workspace, parent: Parent | None, made: Manifest) -> bool:
    """Tell whether the branch has this very file, and all objects of its manifest are here."""
    return (
        parent is not None
        and parent.manifest.hash == made.hash
        and not workspace.storage.unsound(parent.manifest.objects())
    )
