"""One file of one commit of a remote repository, without a clone of it.

A temporary repository fetches that commit alone, without its files, then the blob, then the LFS
objects that its manifest or pointer names: what an inference machine needs, and nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from git_theta import manifest, transfer
from git_theta.checkpoint.smudge import smudge_to
from git_theta.core.files import atomic_file
from git_theta.core.os_errors import store_error
from git_theta.core.progress import Progress
from git_theta.errors import GitError, MissingObjectError, UsageError, naming
from git_theta.filters.lfs_content import content_of
from git_theta.git import command
from git_theta.git.blob_files import spooled
from git_theta.git.command import decode
from git_theta.git.lfs_files import LONGEST, is_pointer
from git_theta.workspace import Workspace, open_workspace

_REMOTE = "origin"
_COMMIT = "refs/theta/fetched"


def fetch_file(url: str, rev: str, path: str, target: Path, progress: Progress) -> int:
    """Write the file at ``path`` in commit ``rev`` of the repository ``url``; return its size.

    ``rev`` is a branch, a tag or a full commit id. ``target`` appears whole or not at all. Raises
    ``UsageError`` for a path that is not there, ``GitError``, ``MissingObjectError``.
    """
    if rev.startswith(("-", "+")) or ":" in rev or not rev:
        raise UsageError(f"{rev!r} is not a branch, a tag or a full commit id")
    with _repository(target.absolute().parent, progress) as workspace:
        _fetch(workspace, _absolute(url), rev)
        with naming(path):
            return _write(workspace, path, target)


@contextmanager
def _repository(folder: Path, progress: Progress) -> Iterator[Workspace]:
    """Yield an empty repository beside the target, where there is room for what is fetched."""
    try:
        scratch = TemporaryDirectory(prefix=".git-theta-", dir=folder)
    except OSError as error:
        raise store_error(error, folder) from error
    with scratch as name:
        command.run(["git", "init", "-q", "--bare", "--template=", name])
        with open_workspace(Path(name), progress) as workspace:
            yield workspace


def _absolute(url: str) -> str:
    return str(Path(url).absolute()) if Path(url).exists() else url


def _fetch(workspace: Workspace, url: str, rev: str) -> None:
    repo = workspace.repo
    repo.git("remote", "add", "--", _REMOTE, url)
    options = ("--quiet", "--no-tags", "--depth=1", "--filter=blob:none")
    try:
        repo.git("fetch", *options, "--", _REMOTE, f"{rev}:{_COMMIT}", show_errors=False)
    except GitError as error:
        raise GitError(
            f"{rev} cannot be fetched from {url}: {error.message}",
            details=error.details,
            hint="REV is a branch, a tag, or a full commit id, which some hosts do not give out; "
            f"git ls-remote {url} lists branches and tags",
        ) from error
    # git-lfs reads the commit's .lfsconfig there.
    repo.git("update-ref", "--no-deref", "HEAD", _COMMIT)


def _write(workspace: Workspace, path: str, target: Path) -> int:
    repo = workspace.repo
    listed = decode(repo.git("ls-tree", "-z", "--full-tree", _COMMIT, "--", path)).split("\0")
    row = next((row.split("\t", 1)[0].split() for row in listed if row.endswith(f"\t{path}")), None)
    if row is None or not row[0].startswith("100"):
        hint = "give its path from the top of the repository"
        raise UsageError("no such file in this commit", hint=hint)
    blob = row[2]
    if (found := repo.peek(blob, LONGEST)) is None:
        raise GitError("its blob cannot be fetched", hint="try again, or clone the repository")
    if manifest.is_manifest(found.head):
        return _restore(workspace, path, repo.read_blob(blob) or b"", target)
    if is_pointer(found.head):
        if (file := content_of(workspace, found.head)) is None:
            raise MissingObjectError(
                "this is a Git LFS pointer, and its object cannot be fetched",
                hint="in a clone that has it: git lfs push --all REMOTE",
            )
        return _copy(file, target)
    with spooled(repo, blob, repo.theta_dir / "tmp") as file:
        return _copy(file, target)


def _restore(workspace: Workspace, path: str, text: bytes, target: Path) -> int:
    described = manifest.parse(text)
    transfer.fetch(workspace, described.objects())
    with atomic_file(target) as output:
        smudge_to(described, workspace.storage, output, path)
    return described.size


def _copy(file: Path, target: Path) -> int:
    with file.open("rb") as reader, atomic_file(target) as output:
        shutil.copyfileobj(reader, output, 1 << 20)
    return target.stat().st_size
