"""Objects to a remote: verified before they leave, asked for where they are not here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from git_theta.core.messages import plural, short_id, some_ids
from git_theta.errors import CorruptObjectError, MissingObjectError
from git_theta.git import pointer_refs
from git_theta.git.lfs import Lfs
from git_theta.git.remotes import Remote, find_remote
from git_theta.transfer import records
from git_theta.transfer.download import fetch_anew
from git_theta.transfer.needs import history_entries, needed_objects
from git_theta.workspace import Workspace

Warn = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An upload: the objects sent (oid to bytes), of how many that were needed, to which remote."""

    remote: str
    sent: Mapping[str, int]
    needed: int


@dataclass(slots=True)
class LocalObjects:
    """Needed objects by their state here: oid to file, and oid to bytes."""

    whole: dict[str, Path] = field(default_factory=dict)
    absent: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)


def push(workspace: Workspace, name: str, tips: Iterable[str], warn: Warn) -> Uploaded:
    """Put every object that the history of ``tips`` needs on a remote, and name it there.

    What other pushes recorded does not count: the remote itself is asked. Raises
    ``MissingObjectError`` when some are missing locally and there, after the others were uploaded.
    """
    remote = find_remote(workspace.repo, name)
    commits = list(tips)
    found = workspace.repo.local_entries(history_entries(workspace.repo, commits))
    needed = needed_objects(workspace.repo, found, warn, workspace.store.size)
    with naming(workspace, remote, needed, warn) as name_them:
        try:
            sent = put(workspace, remote, needed)
        except (MissingObjectError, CorruptObjectError):
            whole = inspect(workspace, needed).whole
            put(workspace, remote, {oid: needed[oid] for oid in whole})
            raise
        name_them()
    records.add(workspace.repo, remote, commits=commits, objects=needed)
    return Uploaded(remote.title, sent, len(needed))


def put(workspace: Workspace, remote: Remote, needed: Mapping[str, int]) -> dict[str, int]:
    """Upload ``needed`` (oid to bytes); return what was sent.

    What is not here whole must be there, or come from another place. Raises
    ``MissingObjectError`` or ``CorruptObjectError`` before anything is sent, if it does not.
    """
    local = inspect(workspace, needed)
    lfs = Lfs(workspace.repo)
    lacking = {oid: needed[oid] for oid in lfs.lacking(remote, {**local.absent, **local.damaged})}
    try:
        fetch_anew(workspace, lacking)
    except MissingObjectError:
        damaged = [item for item in local.damaged.items() if item[0] in lacking]
        raise (
            _damaged(workspace, *damaged[0]) if damaged else _unavailable(remote, lacking)
        ) from None
    whole = local.whole | {oid: workspace.store.path(oid) for oid in lacking}
    sent = lfs.upload(remote, whole, workspace.storage.progress)
    return {oid: needed[oid] for oid in sent}


@contextmanager
def naming(
    workspace: Workspace,
    remote: Remote,
    objects: Mapping[str, int],
    warn: Warn,
    leaving: Collection[str] = (),
) -> Iterator[Callable[[], None]]:
    """Provide what names objects on a remote by pointers, to be called when they have arrived.

    It does nothing where the settings say that the remote needs none. Meanwhile, beside the upload,
    the remote is asked which are named there and the pointers are written here.
    """
    if not workspace.storage.settings.pointers or not (objects or leaving):
        yield lambda: None
        return
    repo = workspace.repo
    with ThreadPoolExecutor(1) as beside:
        prepared = None if leaving else beside.submit(pointer_refs.prepare, repo, remote, objects)

        def name_them() -> None:
            draft = prepared.result() if prepared else None
            if draft is None or not pointer_refs.publish_draft(repo, remote, draft, warn):
                pointer_refs.publish(repo, remote, objects, warn, leaving)

        yield name_them


def inspect(workspace: Workspace, needed: Mapping[str, int]) -> LocalObjects:
    """Part objects by their state here; each is hashed, unless it was since its file changed."""
    store, found = workspace.store, LocalObjects()
    unsound = workspace.storage.unsound(needed)
    for oid, size in needed.items():
        if oid not in unsound:
            found.whole[oid] = store.path(oid)
        elif store.has(oid):
            found.damaged[oid] = size
        else:
            found.absent[oid] = size
    return found


def _damaged(workspace: Workspace, oid: str, size: int) -> CorruptObjectError:
    """Return the error that says what is wrong with an object that is here."""
    path = workspace.store.path(oid)
    try:
        workspace.store.verify(oid)
    except CorruptObjectError as error:
        return error
    what = f"a manifest needs {size} bytes of object {short_id(oid)}, which has another size"
    return CorruptObjectError(what, path=str(path), hint="git theta fsck")


def _unavailable(remote: Remote, lacking: Mapping[str, int]) -> MissingObjectError:
    some = sorted(lacking)
    are = "is" if len(some) == 1 else "are"
    objects = plural(len(some), "object")
    return MissingObjectError(
        f"{objects} {are} missing locally, on {remote.title} and on every other remote: "
        f"{some_ids(some)}",
        hint="git theta fsck names what needs them; in a clone that has them: git theta push --all",
    )
