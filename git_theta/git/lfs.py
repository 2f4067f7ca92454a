"""Objects to and from a remote, by git-lfs: its batching, credentials, ssh and custom transfers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

from git_theta.core.progress import NullProgress, Progress
from git_theta.core.system import exclusive_lock, link_or_copy
from git_theta.errors import MissingToolError, TransferError
from git_theta.git import command, lfs_progress
from git_theta.git.command import decode
from git_theta.git.lfs_client import Download
from git_theta.git.repository import Repository

_OLDEST = (3, 3)  # has ``push --object-id --stdin``
_INSTALL = "install git-lfs 3.3 or newer, for example: apt install git-lfs"

# A remote that is given by URL or path is given this name, for git-lfs takes a path only by name.
_UNNAMED = "git-theta"

# Settings by which git-lfs puts objects elsewhere than beside the commits (git-lfs-config(5)).
_REDIRECTS = r"^(lfs\.(.*\.)?(url|pushurl|standalonetransferagent)|remote\..*\.lfs(push)?url)$"

Deliver = Callable[[str, Path], None]


@dataclass(frozen=True, slots=True)
class _Target:
    """A remote for git-lfs: options for git, its name, and where it lies if on this machine."""

    options: tuple[str, ...]
    name: str
    folder: Path | None


class Lfs:
    """git-lfs at work for one repository."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo

    @staticmethod
    def require() -> str:
        """The version of git-lfs; ``MissingToolError`` when it is absent or too old."""
        result = command.attempt(["git", "lfs", "version"])
        found = re.match(r"git-lfs/((\d+)\.(\d+)\S*)", decode(result.out))
        if result.status or not found:
            raise MissingToolError("git-lfs is not installed", hint=_INSTALL)
        if (int(found[2]), int(found[3])) < _OLDEST:
            raise MissingToolError(f"git-lfs {found[1]} is too old", hint=_INSTALL)
        return found[1]

    def media_path(self, oid: str) -> Path:
        """Where git-lfs keeps an object of this repository."""
        return _media_path(self._media_dir, oid)

    @cached_property
    def _media_dir(self) -> Path:
        return _media_dir(self._repo.git("lfs", "env"))

    # --- upload ----------------------------------------------------------------------------------

    def upload(
        self, remote: str, objects: Mapping[str, Path], progress: Progress | None = None
    ) -> None:
        """Put objects (oid to file) on a remote, given by name, URL or path.

        Those that the remote has are not sent again. Raises ``TransferError``, then some may have
        arrived and some not.
        """
        if not objects:
            return
        self.require()
        sizes = {oid: file.stat().st_size for oid, file in objects.items()}
        target = self._target(remote)
        push = ["git", *target.options, "lfs", "push", "--object-id", "--stdin", target.name]
        oids = "".join(f"{oid}\n" for oid in objects).encode()
        with (
            self._lock(),
            self._linked(objects),
            lfs_progress.follow(progress or NullProgress(), sizes) as log,
        ):
            env = {**self._repo.environment(), "GIT_LFS_PROGRESS": str(log)}
            result = command.attempt(push, cwd=self._repo.top, stdin=oids, env=env)
        if result.status:
            raise _failed("upload to", remote, result.err)
        if target.folder and not self._is_redirected():
            _check_arrival(remote, target.folder, sizes)

    @contextmanager
    def _linked(self, objects: Mapping[str, Path]) -> Iterator[None]:
        """Objects in git-lfs's own storage, for as long as it reads them there."""
        made: list[Path] = []
        try:
            for oid, file in objects.items():
                target = self.media_path(oid)
                if not _has_size(target, file.stat().st_size):
                    link_or_copy(file, target)
                    made.append(target)
            yield
        finally:
            # They would be ours twice where links are not possible, and of no use.
            for target in made:
                target.unlink(missing_ok=True)

    # --- download --------------------------------------------------------------------------------

    def download(
        self,
        objects: Mapping[str, int],
        remote: str | None,
        deliver: Deliver,
        progress: Progress | None = None,
    ) -> None:
        """Fetch objects (oid to bytes) in one go and hand each to ``deliver`` as it comes.

        The file that ``deliver`` is given has the right size and is removed afterwards; whether
        it has the right content is for ``deliver`` to say. ``remote`` ``None`` is the default
        one. Raises ``TransferError`` when some did not come; the others were delivered.
        """
        if not objects:
            return
        self.require()
        chosen = remote or next(iter(self._repo.remotes()), "origin")
        meter = progress or NullProgress()
        meter.start("Downloading", sum(objects.values()))
        with self._lock():
            absent = dict(objects)
            for oid in self._present(objects):
                deliver(oid, self.media_path(oid))
                meter.advance(absent.pop(oid))
            if absent:
                self._fetch(absent, chosen, deliver, meter)
        meter.finish()

    def _fetch(
        self, objects: dict[str, int], remote: str, deliver: Deliver, meter: Progress
    ) -> None:
        target = self._target(remote)
        waiting = dict(objects)
        environment = self._repo.environment()
        with Download(self._repo.top, environment, target.options, target.name) as download:
            for oid in download.fetch(objects):
                if oid in waiting and _has_size(self.media_path(oid), objects[oid]):
                    self._hand_over(oid, deliver)
                    meter.advance(waiting.pop(oid))
            if waiting:
                oid, size = next(iter(waiting.items()))
                words = download.explain(oid, size)
                raise _failed(f"download {len(waiting)} objects from", remote, words)

    def _hand_over(self, oid: str, deliver: Deliver) -> None:
        file = self.media_path(oid)
        try:
            deliver(oid, file)
        finally:
            with suppress(OSError):
                file.unlink()

    def _present(self, objects: Mapping[str, int]) -> list[str]:
        return [oid for oid, size in objects.items() if _has_size(self.media_path(oid), size)]

    # --- both ------------------------------------------------------------------------------------

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One transfer at a time: the end of one would remove objects that another one reads."""
        with exclusive_lock(self._repo.theta_dir / "lfs.lock"):
            yield

    def _target(self, remote: str) -> _Target:
        if remote in self._repo.remotes():
            url = decode(self._repo.git("remote", "get-url", "--push", remote)).strip()
            return _Target((), remote, _folder_of(url, self._repo.top))
        folder = _folder_of(remote, self._repo.top)
        url = folder.as_uri() if folder else remote
        return _Target(("-c", f"remote.{_UNNAMED}.url={url}"), _UNNAMED, folder)

    def _is_redirected(self) -> bool:
        """Whether objects may go elsewhere than commits."""
        named = self._repo.git("config", "--name-only", "--get-regexp", _REDIRECTS, check=False)
        places = (":.lfsconfig", "HEAD:.lfsconfig")
        return bool(
            named
            or (self._repo.top / ".lfsconfig").exists()
            or any(self._repo.read_blob(place) is not None for place in places)
        )


def _check_arrival(remote: str, folder: Path, sizes: Mapping[str, int]) -> None:
    """Look for the objects where a remote is a folder: git-lfs can succeed in doing nothing."""
    # Another repository: nothing that git told us about ours counts there.
    names = decode(command.run(["git", "rev-parse", "--local-env-vars"])).split()
    unset: dict[str, str | None] = dict.fromkeys(names)
    media = _media_dir(command.run(["git", "lfs", "env"], cwd=folder, env=unset))
    lacking = [oid for oid, size in sizes.items() if not _has_size(_media_path(media, oid), size)]
    if lacking:
        raise _failed("upload to", remote, f"{lacking[0]} did not arrive in {media}")


def _media_dir(env: bytes) -> Path:
    for line in decode(env).splitlines():
        key, _, value = line.partition("=")
        if key == "LocalMediaDir":
            return Path(value)
    raise MissingToolError("git lfs env does not say where objects are", hint=_INSTALL)


def _media_path(media: Path, oid: str) -> Path:
    return media / oid[:2] / oid[2:4] / oid


def _has_size(file: Path, size: int) -> bool:
    return file.is_file() and file.stat().st_size == size


def _folder_of(url: str, base: Path) -> Path | None:
    """The folder of a remote on this machine, or ``None``."""
    parts = urlsplit(url)
    folder = Path(unquote(parts.path)) if parts.scheme == "file" else base / url
    return folder.resolve() if folder.is_dir() else None


def _failed(what: str, remote: str, words: str) -> TransferError:
    cause = words.strip() or "git-lfs gave no reason"
    hint = f"git lfs env; git ls-remote {remote}"
    return TransferError(f"cannot {what} {remote}: {cause}", hint=hint)
