"""Objects that a remote has for sure, so that those here may go."""

from __future__ import annotations

from collections.abc import Mapping

from git_theta.errors import ThetaError
from git_theta.git.lfs import Lfs
from git_theta.git.lfs_storage import Neighbour
from git_theta.git.remotes import Remote
from git_theta.store.soundness import check
from git_theta.workspace import Workspace


def verified(workspace: Workspace, remote: Remote, objects: Mapping[str, int]) -> set[str]:
    """Return those of ``objects`` (oid to bytes) that a remote has: a server is asked for each.

    Of a remote that is a folder the file is hashed, and does not count where it is ours: the remote
    may be this very repository, by another name. Raises ``TransferError`` where a server does not
    say.
    """
    if remote.folder is None or remote.redirected:
        return objects.keys() - Lfs(workspace.repo).lacking(remote, objects)
    neighbour = Neighbour(remote.folder, workspace.repo)
    return {oid for oid, size in objects.items() if _is_copy(workspace, neighbour, oid, size)}


def _is_copy(workspace: Workspace, neighbour: Neighbour, oid: str, size: int) -> bool:
    file = neighbour.find(oid, size)
    if file is None or file.resolve() == workspace.store.path(oid).resolve():
        return False
    if file.resolve().is_relative_to(workspace.repo.common_dir.resolve()):
        return False
    try:
        check(file, oid, size)
    except (ThetaError, OSError):
        return False
    return True
