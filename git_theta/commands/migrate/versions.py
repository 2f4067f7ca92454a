"""The versions of files that a migration converts, found before anything is converted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from git_theta.core.messages import plural, short_id
from git_theta.core.progress import Progress
from git_theta.errors import GitError, MissingObjectError, PointerError, ThetaError
from git_theta.git import Entry, Repository, entries
from git_theta.git.lfs import Lfs
from git_theta.git.lfs_files import LONGEST, is_pointer, target_of
from git_theta.git.lfs_storage import has_size
from git_theta.git.path_globs import PathGlobs
from git_theta.git.remotes import fetch_remote
from git_theta.manifest import PREFIX

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Version:
    """A file of ``size`` bytes that ``commit`` brought to ``path``.

    ``oid`` names its object in Git LFS; ``None`` where Git has the file itself.
    """

    path: str
    blob: str
    commit: str
    size: int
    oid: str | None

    @property
    def place(self) -> str:
        """Return the path and the commit, for a message."""
        return f"{self.path} (commit {short_id(self.commit)})"


def to_import(repo: Repository, tips: Sequence[str], globs: PathGlobs) -> dict[str, Version]:
    """Return the plain files and LFS pointers in the history of ``tips``, by blob.

    Raises ``PointerError`` for a pointer that does not say what it stands for, ``GitError`` for a
    blob that a partial clone lacks.
    """
    chosen: dict[str, Entry] = {}
    for entry in repo.range_entries(tips, []):
        if entry.blob not in chosen and globs.included(entry.path):
            chosen[entry.blob] = entry
    found = list(entries.sized(repo.git, chosen.values()))
    _check_here(chosen, found)
    return {version.blob: version for entry in found if (version := _version(repo, entry))}


def _check_here(chosen: dict[str, Entry], found: Iterable[Entry]) -> None:
    if absent := chosen.keys() - {entry.blob for entry in found}:
        entry = chosen[min(absent)]
        raise GitError(
            f"its content in commit {short_id(entry.commit or '')} is not in this clone",
            path=entry.path,
            hint="migrate in a clone that is whole: git clone URL, without --filter",
        )


def _version(repo: Repository, entry: Entry) -> Version | None:
    """Return what is to be converted; an empty file and a manifest stay as they are."""
    size, commit = entry.size or 0, entry.commit or ""
    head = repo.read_blob(entry.blob, LONGEST) if size <= LONGEST else None
    if is_pointer(head):
        oid, size = _pointer(head or b"", Version(entry.path, entry.blob, commit, size, None))
        return Version(entry.path, entry.blob, commit, size, oid)
    if not size or (size > len(PREFIX) and any(repo.manifests([entry]))):
        return None
    return Version(entry.path, entry.blob, commit, size, None)


def _pointer(text: bytes, version: Version) -> tuple[str, int]:
    if target := target_of(text):
        return target
    raise PointerError(
        "this Git LFS pointer names no object, or needs an extension of git-lfs",
        path=version.place,
        hint="--exclude leaves a path as it is",
    )


def fetch_missing(
    repo: Repository, versions: Iterable[Version], remotes: Sequence[str], progress: Progress
) -> None:
    """Bring the LFS objects that ``versions`` need from ``remotes`` into git-lfs's storage.

    Raises ``MissingObjectError`` that names path and commit where one cannot be fetched.
    """
    needed = {version.oid: version for version in versions if version.oid and version.size}
    lfs, problems = Lfs(repo), list[ThetaError]()
    for source in remotes:
        lacking = _lacking(lfs, needed.values())
        if not lacking:
            return
        try:
            sizes = {version.oid or "": version.size for version in lacking}
            lfs.obtain(sizes, fetch_remote(repo, source), progress)
        except ThetaError as error:
            problems.append(error)
    if lacking := _lacking(lfs, needed.values()):
        raise _absent(repo, lacking, problems)


def _lacking(lfs: Lfs, versions: Iterable[Version]) -> list[Version]:
    return [v for v in versions if v.oid and not has_size(lfs.media_path(v.oid), v.size)]


def stored_size(repo: Repository, versions: Iterable[Version]) -> int:
    """Return the bytes that versions take: each LFS object once, and blobs as Git packs them."""
    found = list(versions)
    objects = {version.oid: version.size for version in found if version.oid}
    blobs = entries.disk_sizes(repo.git, [version.blob for version in found])
    return sum(objects.values()) + sum(blobs.values())


def _absent(
    repo: Repository, lacking: Sequence[Version], problems: Sequence[ThetaError]
) -> MissingObjectError:
    names = [f"{v.place}: object {short_id(v.oid or '')}" for v in lacking[:_SHOWN]]
    why = [problem.message for problem in problems[:_SHOWN]]
    remote = next(iter(repo.remotes()), "REMOTE")
    are = "is" if len(lacking) == 1 else "are"
    return MissingObjectError(
        f"{plural(len(lacking), 'object')} of Git LFS {are} missing locally and on every remote; "
        "nothing was changed",
        details=[*names, *why],
        hint=f"git lfs fetch --all {remote}; or in a clone that has them: git lfs push --all "
        f"{remote}; then run this again; or --exclude those paths",
    )
