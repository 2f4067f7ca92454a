"""Objects that are not here, from wherever they are: other folders first, then each remote."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from git_theta import manifest
from git_theta.core.messages import plural, short_id, some_ids
from git_theta.core.parallel import in_order
from git_theta.errors import (
    CorruptObjectError,
    MissingObjectError,
    ThetaError,
    TransferError,
)
from git_theta.git.lfs import Lfs
from git_theta.git.lfs_storage import Neighbour, alternates
from git_theta.git.remotes import Remote, fetch_remote
from git_theta.manifest import Manifest
from git_theta.transfer import records
from git_theta.workspace import Workspace


def fetch(
    workspace: Workspace, objects: Mapping[str, int], remotes: list[str] | None = None
) -> None:
    """Bring those of ``objects`` (oid to bytes) that are not here, each remote asked once.

    They may lie in this repository's own LFS storage, in one that it borrows Git objects from, or
    on a remote; one that is a folder is read where its objects lie, be it bare or somebody's
    working repository. Raises ``MissingObjectError`` when some are nowhere, ``CorruptObjectError``
    when all copies of one are damaged.
    """
    missing = {oid: size for oid, size in objects.items() if not workspace.store.has(oid)}
    fetch_anew(workspace, missing, remotes)


def fetch_each(workspace: Workspace, manifests: Iterable[Manifest]) -> list[ThetaError]:
    """Fetch what several checkpoints need, in as few goes as can be; return what went wrong.

    One that states a wrong size of an object stops no other.
    """
    problems = list[ThetaError]()
    for objects in manifest.objects_of(manifests):
        try:
            fetch(workspace, objects)
        except ThetaError as error:
            problems.append(error)
    return problems


def fetch_beside(workspace: Workspace, manifests: Iterable[Manifest]) -> Future[list[ThetaError]]:
    """Begin to do the same on another thread; ``store.arrivals`` says what has come."""
    wanted, store = list(manifests), workspace.store
    with suppress(ThetaError):  # of a store that may not be looked into: the fetch says so
        expected = (oid for found in wanted for oid in found.objects())
        store.arrivals.expect([oid for oid in expected if not store.has(oid)])

    def work() -> list[ThetaError]:
        try:
            return fetch_each(workspace, wanted)
        finally:
            store.arrivals.end()

    pool = ThreadPoolExecutor(1, thread_name_prefix="git-theta")
    fetching = pool.submit(work)
    pool.shutdown(wait=False)
    return fetching


def fetch_anew(
    workspace: Workspace, objects: Mapping[str, int], remotes: list[str] | None = None
) -> None:
    """Do the same for objects that are not here, or are damaged here and to be replaced."""
    if not objects:
        return
    search = _Search(workspace, dict(objects))
    for source in search.sources(remotes):
        source()
        if not search.missing:
            return
    raise search.failure()


# Objects that are taken from a folder at once: each is hashed, and then waits for the disk.
_AT_ONCE = 8

_ELSEWHERE = (
    "in a clone that has them whole: git theta push --all REMOTE; "
    "or here: git theta fsck --repair --from THAT_CLONE"
)


class _Search:
    """Objects that are still missing, and why."""

    def __init__(self, workspace: Workspace, missing: dict[str, int]) -> None:
        self._workspace = workspace
        self.missing = missing
        self._damaged: dict[str, str] = {}
        self._problem: ThetaError | None = None
        self._has_remote = False

    def sources(self, remotes: list[str] | None) -> Iterator[Callable[[], None]]:
        """Return the places to look into, the cheapest first."""
        repo = self._workspace.repo
        yield self._shared_store
        yield self._own_storage
        for folder in alternates(repo):
            yield partial(self._folder, folder, str(folder))
        for name in repo.remotes() if remotes is None else remotes:
            self._has_remote = True
            yield partial(self._remote, fetch_remote(repo, name))

    def _shared_store(self) -> None:
        for oid, size in self.missing.copy().items():
            if self._workspace.store.take(oid, size):
                del self.missing[oid]

    def _own_storage(self) -> None:
        repo = self._workspace.repo
        if (repo.common_dir / "lfs").is_dir() or repo.config_value("lfs.storage"):
            Lfs(repo).download(self.missing.copy(), None, self._taker("git-lfs's storage here"))

    def _folder(self, folder: Path, title: str) -> None:
        neighbour, take = Neighbour(folder, self._workspace.repo), self._taker(title)
        found = [(oid, neighbour.find(oid, size)) for oid, size in self.missing.items()]
        there = [(oid, file) for oid, file in found if file]
        for _ in in_order(lambda pair: take(*pair), there, _AT_ONCE, small_results=True):
            pass

    def _remote(self, remote: Remote) -> None:
        before = self.missing.copy()
        try:
            if remote.folder and not remote.redirected:
                self._folder(remote.folder, remote.title)
            lfs, progress = Lfs(self._workspace.repo), self._workspace.storage.progress
            lfs.download(self.missing.copy(), remote, self._taker(remote.title), progress)
        except TransferError as error:
            self._problem = error
        arrived = before.keys() - self.missing.keys()
        if arrived:
            records.add(self._workspace.repo, remote, objects=arrived)

    def _taker(self, title: str) -> Callable[[str, Path], None]:
        """Return what takes a file in as an object; a bad one is noted, and the search goes on."""

        def take(oid: str, file: Path) -> None:
            try:
                self._workspace.store.adopt(oid, self.missing[oid], file)
                del self.missing[oid]
            except (CorruptObjectError, MissingObjectError) as error:
                self._damaged[oid] = f"{title}: {error.message}"

        return take

    def failure(self) -> ThetaError:
        """Return the error that says what did not come, and why."""
        count, some = len(self.missing), sorted(self.missing)
        objects, names = plural(count, "object"), some_ids(some)
        bad = {oid: why for oid, why in self._damaged.items() if oid in self.missing}
        if bad:
            return CorruptObjectError(
                f"{objects} cannot be fetched, {len(bad)} of them damaged where found: {names}",
                details=[f"{short_id(oid)} in {why}" for oid, why in sorted(bad.items())[:3]],
                hint=_ELSEWHERE,
            )
        problem = self._problem
        because = f" ({problem.message})" if problem else ""
        verb = "is" if count == 1 else "are"
        where = "on every remote" if self._has_remote else "there is no remote"
        return MissingObjectError(
            f"{objects} {verb} missing locally and {where}: {names}{because}",
            details=problem.details if problem else (),
            hint=_ELSEWHERE,
        )
