"""Manifests for a list: one that cannot be read is told of, and hides none of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from git_theta import manifest
from git_theta.errors import ManifestError
from git_theta.git import Entry, Repository
from git_theta.git.tracked import TrackedPaths
from git_theta.manifest import Manifest

Tell = Callable[[ManifestError], None]


def refuse(error: ManifestError) -> None:
    """Raise the error: for a caller that needs every manifest."""
    raise error


def readable(
    repo: Repository, entries: Iterable[Entry], tell: Tell
) -> Iterator[tuple[Entry, Manifest]]:
    """Yield the manifests among ``entries``; ``tell`` gets the error of each other one.

    A file that begins like a manifest is none where the filter does not track its path.
    """
    with TrackedPaths(repo) as tracked:
        for entry, text in repo.manifests(entries):
            try:
                found = manifest.parse(text)
            except ManifestError as error:
                if tracked.covers(entry) and (entry.commit or tracked.covers_now(entry.path)):
                    error.at(entry.path)
                    tell(error)
                continue
            yield entry, found
