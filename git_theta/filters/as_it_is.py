"""Files that git gets as they are: pointers of Git LFS, and manifests that were not checked out.

A new one that is wrong is refused, since adding it would hide a mistake. One that is committed
already passes: `git status` reads files again that are as old as the index, and must not end there.
"""

from __future__ import annotations

from git_theta import manifest
from git_theta.core.messages import as_typed
from git_theta.errors import ManifestError, PointerError
from git_theta.git import Repository
from git_theta.git.lfs_files import file_command


def check_pointer(repo: Repository, path: str, text: bytes) -> None:
    """Raise ``PointerError`` for a pointer that is not committed."""
    if not _is_committed(repo, path, text):
        raise pointer_error(repo, path)


def pointer_error(repo: Repository, path: str, option: str = "") -> PointerError:
    """Return the error that names the command which puts the file in the pointer's place.

    ``option`` is for `git add`, with a blank behind it.
    """
    return PointerError(
        "this is a Git LFS pointer, but git-theta tracks the path",
        path=path,
        hint=f"{file_command(repo, path)}, then git add {option}{as_typed(path)}",
    )


def check_manifest(repo: Repository, path: str, text: bytes) -> None:
    """Raise ``ManifestError`` for one that cannot be read and is not committed."""
    try:
        manifest.parse(text)
    except ManifestError:
        if not _is_committed(repo, path, text):
            raise


def _is_committed(repo: Repository, path: str, text: bytes) -> bool:
    return any(repo.read_blob(f"{rev}:{path}", len(text)) == text for rev in ("", "HEAD"))
