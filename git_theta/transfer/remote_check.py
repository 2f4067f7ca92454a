"""Objects that are missing on a remote, and which of its commits need them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from git_theta.git.lfs import Lfs
from git_theta.git.pointer_refs import is_pointer_ref
from git_theta.git.remotes import Remote, find_remote, refs_of
from git_theta.transfer.needs import history_entries, place_of, read_manifests
from git_theta.workspace import Workspace


@dataclass(frozen=True, slots=True)
class MissingThere:
    """An object that a remote lacks, and the checkpoints (``COMMIT:PATH``) that need it."""

    oid: str
    size: int
    here: bool
    needed_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemoteReport:
    """The result: how many objects the remote's branches and tags need, and those it lacks.

    ``unseen`` refs of it are not here, so that nothing is known of what they need.
    """

    remote: str
    objects: int
    unseen: tuple[str, ...]
    missing: tuple[MissingThere, ...]

    @property
    def ok(self) -> bool:
        """Return whether nothing is missing."""
        return not self.missing


@dataclass(frozen=True, slots=True)
class Needs:
    """What a remote's branches and tags need: each object's bytes, and the places that name it.

    ``unseen`` are refs of it that are not here.
    """

    sizes: dict[str, int]
    uses: dict[str, list[str]]
    unseen: tuple[str, ...]


def needs_of(workspace: Workspace, remote: Remote, warn: Callable[[str], None]) -> Needs:
    """Ask a remote for its branches and tags, and return what those need."""
    repo = workspace.repo
    listed = refs_of(repo, remote, "refs/heads/*", "refs/tags/*")
    refs = {
        ref: id_
        for ref, id_ in listed.items()
        if not ref.endswith("^{}") and not is_pointer_ref(ref)
    }
    here = repo.peel(refs.values())
    needs = Needs({}, {}, tuple(sorted(ref for ref, id_ in refs.items() if id_ not in here)))
    entries = repo.local_entries(history_entries(repo, here))
    for entry, manifest in read_manifests(repo, entries, warn):
        place = place_of(entry)
        for oid, size in manifest.objects().items():
            needs.sizes[oid] = size
            needs.uses.setdefault(oid, []).append(place)
    return needs


def check_remote(workspace: Workspace, name: str, warn: Callable[[str], None]) -> RemoteReport:
    """Ask a remote for every object that its branches and tags need; nothing is moved."""
    remote = find_remote(workspace.repo, name)
    needs = needs_of(workspace, remote, warn)
    return RemoteReport(
        remote=remote.title,
        objects=len(needs.sizes),
        unseen=needs.unseen,
        missing=tuple(
            MissingThere(oid, needs.sizes[oid], workspace.store.has(oid), tuple(needs.uses[oid]))
            for oid in sorted(Lfs(workspace.repo).lacking(remote, needs.sizes))
        ),
    )
