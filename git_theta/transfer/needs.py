"""The manifests of commits, and the objects that they need.

Any file may begin like a manifest: documentation, a test, something planted. It is one only where
the filter tracks its path in that commit, and it can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from git_theta import manifest
from git_theta.core.messages import short_id
from git_theta.errors import ManifestError, UnsupportedVersionError
from git_theta.git import Entry, Repository
from git_theta.git.tracked import ATTRIBUTES, TrackedPaths
from git_theta.manifest import Manifest

Warn = Callable[[str], None]


def silent(_message: str) -> None:
    """Tell nobody: for a caller that looks at the same manifests twice."""


def read_manifests(
    repo: Repository,
    entries: Iterable[Entry],
    warn: Warn,
    others: Callable[[Entry], object] = lambda _: None,
) -> Iterator[tuple[Entry, Manifest]]:
    """Return the manifests among ``entries`` that the filter tracks, each blob once.

    One that cannot be read is told to ``warn`` once, with commit and path, and the others follow:
    no file can be made of it, so it needs no objects. Raises ``UnsupportedVersionError`` at the end
    for one of a newer git-theta, whose objects are not known. An entry whose commit is not known
    counts as tracked if it can be read; if not, its commits are looked up. ``others`` is told of
    files with content that the filter tracks, and that are no manifests.
    """
    done: set[str] = set()
    unread: dict[str, tuple[Entry, ManifestError]] = {}
    with TrackedPaths(repo) as tracked:

        def tell(entry: Entry) -> None:
            if entry.size and tracked.covers(entry):
                others(entry)

        for entry, text in repo.manifests(entries, tell):
            if entry.blob in done or not tracked.covers(entry):
                continue
            try:
                found = manifest.parse(text)
            except ManifestError as error:
                unread.setdefault(entry.blob, (entry, error))
                continue
            done.add(entry.blob)
            yield entry, found
        _tell(list(_located(repo, unread, tracked)), warn)


def _located(
    repo: Repository, unread: dict[str, tuple[Entry, ManifestError]], tracked: TrackedPaths
) -> Iterator[tuple[Entry, ManifestError]]:
    """Return those that the filter tracks, now or in a commit that has them."""
    known = {
        blob
        for blob, (entry, _) in unread.items()
        if entry.commit or tracked.covers_now(entry.path)
    }
    unknown = unread.keys() - known
    yield from (unread[blob] for blob in unread if blob in known)
    yield from ((place, unread[place.blob][1]) for place in _places(repo, unknown, tracked))


def _places(repo: Repository, blobs: set[str], tracked: TrackedPaths) -> Iterator[Entry]:
    """Return a place of each of ``blobs`` in a commit where the filter tracks it, if any."""
    sought = set(blobs)
    for place in repo.range_entries(["--all", "--reflog"], []) if sought else ():
        if place.blob in sought and tracked.covers(place):
            sought.discard(place.blob)
            yield place


def tracked_manifests(repo: Repository, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Return what is, or should be, a manifest among ``entries``, with its text.

    An entry whose commit is not known must be tracked now, or in a commit that has it.
    """
    elsewhere: set[str] = set()
    with TrackedPaths(repo) as tracked:
        for entry, text in repo.manifests(entries):
            if tracked.covers(entry) and (entry.commit or tracked.covers_now(entry.path)):
                yield entry, text
            elif entry.commit is None:
                elsewhere.add(entry.blob)
        yield from repo.manifests(list(_places(repo, elsewhere, tracked)))


def _tell(unread: Iterable[tuple[Entry, ManifestError]], warn: Warn) -> None:
    newer: UnsupportedVersionError | None = None
    for entry, error in unread:
        place = place_of(entry)
        if isinstance(error, UnsupportedVersionError):
            newer = newer or error
            newer.at(place)
        else:
            warn(f"{place}: not a manifest, skipped: {error.message}")
    if newer:
        raise newer


def place_of(entry: Entry) -> str:
    """Return ``COMMIT:PATH``, or the path alone where no commit is known."""
    return f"{short_id(entry.commit)}:{entry.path}" if entry.commit else entry.path


def needed_objects(
    repo: Repository,
    entries: Iterable[Entry],
    warn: Warn = silent,
    size_of: Callable[[str], int | None] = lambda oid: None,
    others: Callable[[Entry], object] = lambda _: None,
) -> dict[str, int]:
    """Return every object that the manifests among ``entries`` need: oid to bytes.

    Where they disagree on the size of one, the size that ``size_of`` tells counts, else the first:
    a manifest that states a wrong one must not stop the others. ``others`` as for
    ``read_manifests``.
    """
    needed: dict[str, int] = {}
    for _, found in read_manifests(repo, entries, warn, others):
        for oid, size in found.objects().items():
            if needed.setdefault(oid, size) != size == size_of(oid):
                needed[oid] = size
    return needed


def history_entries(
    repo: Repository, tips: Iterable[str], exclude: Iterable[str] = ()
) -> Iterator[Entry]:
    """Return the files of the commits that ``tips`` have and ``exclude`` does not.

    Both are ids of objects; a tag may also be of a tree, or of a blob, which has no path. A commit
    that changes attributes may make manifests of files that it does not touch: all of its files
    count.
    """
    wanted, known = list(tips), list(exclude)
    found = repo.peel([*wanted, *known])
    kinds = {name: found[name] for name in wanted if name in found}
    commits = [id_ for kind, id_ in kinds.values() if kind == "commit"]
    known = [found[name][1] for name in known if name in found and found[name][0] == "commit"]
    for kind, id_ in kinds.values():
        if kind == "tree":
            yield from repo.tree(id_)
        elif kind == "blob":
            yield Entry(f"blob {short_id(id_)}", id_)
    whole: set[str] = set()
    for entry in repo.range_entries(commits, known) if commits else ():
        yield entry
        changed = entry.path == ATTRIBUTES or entry.path.endswith(f"/{ATTRIBUTES}")
        if changed and entry.commit and entry.commit not in whole:
            whole.add(entry.commit)
            yield from (replace(other, commit=entry.commit) for other in repo.tree(entry.commit))
