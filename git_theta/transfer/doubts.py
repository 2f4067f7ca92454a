"""Objects that a remote's commits need and that are here, but perhaps not there.

A push with `--no-verify`, or before the hook was there, moved a branch without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from git_theta.git import Repository
from git_theta.git.command import decode
from git_theta.git.pointer_refs import is_pointer_ref
from git_theta.git.remotes import Remote
from git_theta.transfer import records
from git_theta.transfer.needs import history_entries, read_manifests, silent
from git_theta.workspace import Workspace


def objects_in_doubt(
    workspace: Workspace, remote: Remote, tips: Sequence[str], needed: Iterable[str] = ()
) -> dict[str, int]:
    """Return the objects in doubt (oid to bytes) that the history of ``tips`` needs.

    Only objects that this repository neither uploaded there nor got from there are in doubt, those
    in ``needed`` aside, and only commits are looked at that no push has looked at.
    """
    repo, known = workspace.repo, records.load(workspace.repo, remote)
    candidates = set(workspace.store.oids()) - known.objects - set(needed)
    if not candidates:
        return {}
    found: dict[str, int] = {}
    entries = repo.local_entries(history_entries(repo, tips, known.commits))
    for _, manifest in read_manifests(repo, entries, silent):
        found |= {oid: size for oid, size in manifest.objects().items() if oid in candidates}
        if len(found) == len(candidates):
            break
    return found


def last_seen(repo: Repository, name: str) -> list[str]:
    """Return the commits that a remote's branches were last seen at."""
    if not repo.has_remote(name):
        return []
    listed = repo.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/remotes/")
    lines = (line.split(" ", 1) for line in decode(listed).splitlines())
    prefix = f"refs/remotes/{name}/"
    return [id_ for id_, ref in lines if ref.startswith(prefix) and not _is_ours(ref, prefix)]


def _is_ours(ref: str, prefix: str) -> bool:
    return is_pointer_ref(f"refs/heads/{ref.removeprefix(prefix)}")
