"""What must hold before a migration begins, and what it works with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from git_theta.checkpoint.context import StorageContext
from git_theta.commands.migrate import work_tree
from git_theta.commands.migrate.request import Request
from git_theta.commands.migrate.work_tree import Note
from git_theta.core.locks import exclusive_lock
from git_theta.core.sharing import make_folder
from git_theta.errors import UsageError
from git_theta.git import Repository, ref_updates
from git_theta.git.command import decode
from git_theta.git.object_writer import ObjectWriter
from git_theta.git.path_globs import PathGlobs
from git_theta.git.tracked import TrackedPaths
from git_theta.store import Index, ObjectStore
from git_theta.workspace import Workspace

_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A repository that is ready: where new objects go, which refs and commits are meant.

    ``folder`` holds the records of migrations. Of a dry run ``place`` is a folder that goes away.
    """

    place: Workspace
    folder: Path
    refs: Mapping[str, str]
    tips: Sequence[str]
    globs: PathGlobs
    writer: ObjectWriter
    tracked: TrackedPaths


def locked(stack: ExitStack, workspace: Workspace) -> Path:
    """Let no other migration run, and finish one that was killed; return the folder of records."""
    folder = workspace.repo.theta_dir / "migrate"
    stack.enter_context(exclusive_lock(folder / "lock", _PATIENCE))
    work_tree.finish(workspace, Note(folder))
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    return folder


def opened(stack: ExitStack, workspace: Workspace, request: Request, filter_: str) -> Opened:
    """Return what a migration works with. Raises ``UsageError`` where it must not begin.

    ``filter_`` is the one that the work tree needs afterwards, if any.
    """
    folder, repo = locked(stack, workspace), workspace.repo
    if decode(repo.git("rev-parse", "--is-shallow-repository")).strip() == "true":
        raise UsageError(
            "this clone is shallow: the history is not here", hint="git fetch --unshallow"
        )
    refs = _chosen(repo, request)
    if not request.dry_run and repo.work_tree is not None:
        work_tree.check_clean(repo)
        work_tree.check_elsewhere(repo, refs)
        if ref_updates.current_branch(repo) in refs:
            work_tree.check_filter(repo, filter_)
    place = _quarantined(stack, workspace, folder) if request.dry_run else workspace
    # What `git replace` shows in the place of objects is no part of the history.
    own = place.repo.with_variables({"GIT_NO_REPLACE_OBJECTS": "1"})
    stack.callback(own.close)
    kinds = repo.peel(refs.values())
    return Opened(
        Workspace(own, place.storage),
        folder,
        refs,
        list(dict.fromkeys(id_ for kind, id_ in kinds.values() if kind == "commit")),
        stack.enter_context(PathGlobs(request.include, request.exclude)),
        stack.enter_context(ObjectWriter(own)),
        stack.enter_context(TrackedPaths(own)),
    )


def _chosen(repo: Repository, request: Request) -> Mapping[str, str]:
    if request.everything:
        if request.refs:
            raise UsageError("--everything takes no REF")
        return ref_updates.listed(repo, "refs/heads/", "refs/tags/")
    return ref_updates.named(repo, request.refs or ("HEAD",))


def _quarantined(stack: ExitStack, workspace: Workspace, folder: Path) -> Workspace:
    """Return a workspace whose new objects, Git's and ours, lie in a folder that goes away."""
    scratch, repo = folder / "scratch", workspace.repo
    stack.callback(shutil.rmtree, scratch, ignore_errors=True)
    make_folder(scratch / "objects")
    others = [str(repo.common_dir / "objects")]
    others += filter(None, [os.environ.get("GIT_ALTERNATE_OBJECT_DIRECTORIES")])
    variables = {
        "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": os.pathsep.join(others),
    }
    index, store = Index(scratch / "theta"), ObjectStore(scratch / "theta")
    stack.callback(index.close)
    stack.callback(store.close)
    storage = StorageContext(store, index, workspace.storage.settings, workspace.storage.progress)
    own = repo.with_variables(variables)
    stack.callback(own.close)
    return Workspace(own, storage)
