"""Objects to and from a remote, by git-lfs: its batching, credentials, ssh and custom transfers."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from git_theta.core.files import link_or_copy
from git_theta.core.locks import exclusive_lock
from git_theta.core.messages import plural, short_id
from git_theta.core.progress import NullProgress, Progress
from git_theta.errors import MissingToolError, TransferError
from git_theta.git import command, lfs_progress, pointers, refusals
from git_theta.git.command import decode
from git_theta.git.lfs_client import Download
from git_theta.git.lfs_storage import INSTALL, Neighbour, has_size, media_dir, media_path
from git_theta.git.remotes import Remote
from git_theta.git.repository import Repository

_OLDEST = (3, 3)  # has ``push --object-id --stdin``

# A remote that is given by URL or path is given this name, for git-lfs takes a path only by name.
_UNNAMED = "git-theta"

_MISSING = re.compile(r"\((?:missing|corrupt)\) .* \(([0-9a-f]{64})\)")

Deliver = Callable[[str, Path], None]


class Lfs:
    """git-lfs at work for one repository."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._neighbours: dict[Path, Neighbour] = {}

    @staticmethod
    def require() -> str:
        """Return the version of git-lfs; ``MissingToolError`` when it is absent or too old."""
        result = command.attempt(["git", "lfs", "version"])
        found = re.match(r"git-lfs/((\d+)\.(\d+)\S*)", decode(result.out))
        if result.status or not found:
            raise MissingToolError("git-lfs is not installed", hint=INSTALL)
        if (int(found[2]), int(found[3])) < _OLDEST:
            raise MissingToolError(f"git-lfs {found[1]} is too old", hint=INSTALL)
        return found[1]

    def media_path(self, oid: str) -> Path:
        """Return where git-lfs keeps an object of this repository."""
        return media_path(self._media_dir, oid)

    @cached_property
    def _media_dir(self) -> Path:
        moved = self._repo.config_value("lfs.storage")
        return media_dir(self._repo.common_dir, moved, self._repo.git)

    def _neighbour(self, remote: Remote) -> Neighbour | None:
        """Return the repository where a remote is a folder that objects go to."""
        if remote.folder is None or remote.redirected:
            return None
        if remote.folder not in self._neighbours:
            self._neighbours[remote.folder] = Neighbour(remote.folder, self._repo)
        return self._neighbours[remote.folder]

    # --- upload ----------------------------------------------------------------------------------

    def upload(
        self, remote: Remote, objects: Mapping[str, Path], progress: Progress | None = None
    ) -> set[str]:
        """Put objects (oid to file) on a remote; return those that were sent.

        Those that the remote has are not sent again. Raises ``TransferError``, then some may have
        arrived and some not.
        """
        if not objects:
            return set()
        sizes = {oid: file.stat().st_size for oid, file in objects.items()}
        neighbour = self._neighbour(remote)
        lacking = self._lacking_before(remote, sizes) if neighbour or self._has_agents() else None
        options, name = _named(remote)
        push = ["git", *options, "lfs", "push", "--object-id", "--stdin", name]
        oids = "".join(f"{oid}\n" for oid in objects).encode()
        with (
            self._lock(),
            self._linked(objects),
            lfs_progress.follow(progress or NullProgress(), sizes) as log,
        ):
            env = {**self._repo.environment(), "GIT_LFS_PROGRESS": str(log.file)}
            result = command.attempt(push, cwd=self._repo.top, stdin=oids, env=env)
        if result.status:
            self.require()  # which a push that succeeds need not ask: two programs, 15 ms
            raise _failed("upload to", remote, result.err)
        if neighbour is not None:
            _check_arrival(remote, neighbour, sizes)
        return log.sent & objects.keys() if lacking is None else lacking

    def _lacking_before(self, remote: Remote, sizes: Mapping[str, int]) -> set[str] | None:
        """Return what a remote lacks before an upload of which git-lfs may tell nothing.

        ``None`` where the remote does not say: the upload itself fails with a reason, or works.
        """
        try:
            return self.lacking(remote, sizes)
        except TransferError:
            return None

    def _has_agents(self) -> bool:
        """Return whether git-lfs may leave transfers to another program, such as git-xet.

        It may report no progress: https://github.com/git-lfs/git-lfs/blob/main/docs/custom-transfers.md
        """
        agent = re.compile(r"lfs\.(customtransfer\..*\.path|(.*\.)?standalonetransferagent)")
        return any(agent.fullmatch(key) for key in self._repo.config_of("lfs"))

    @contextmanager
    def _linked(self, objects: Mapping[str, Path]) -> Iterator[None]:
        """Objects in git-lfs's own storage, for as long as it reads them there."""
        made: list[Path] = []
        try:
            for oid, file in objects.items():
                target = self.media_path(oid)
                if not has_size(target, file.stat().st_size):
                    link_or_copy(file, target)
                    made.append(target)
            yield
        finally:
            # They would be ours twice where links are not possible, and of no use.
            for target in made:
                target.unlink(missing_ok=True)

    # --- what is there ---------------------------------------------------------------------------

    def lacking(self, remote: Remote, objects: Mapping[str, int]) -> set[str]:
        """Return those of ``objects`` (oid to bytes) that a remote does not have; none is moved.

        Raises ``TransferError`` where it does not say.
        """
        if not objects:
            return set()
        neighbour = self._neighbour(remote)
        if neighbour is not None:
            return {oid for oid, size in objects.items() if neighbour.find(oid, size) is None}
        self.require()
        with TemporaryDirectory(prefix="git-theta-") as folder:
            return self._ask(remote, objects, Path(folder))

    def _ask(self, remote: Remote, objects: Mapping[str, int], folder: Path) -> set[str]:
        """Let git-lfs push pointers whose objects it does not find here.

        It then asks the server about all of them in one request for each hundred, and names those
        that the server lacks. An empty storage keeps it from sending any.
        """
        written, storage = folder / "objects", folder / "lfs"
        written.mkdir()
        env = {
            "GIT_OBJECT_DIRECTORY": str(written),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self._repo.common_dir / "objects"),
        }
        commit = pointers.write_commit(self._repo, objects, env)
        options, name = _named(remote)
        chosen = (f"lfs.storage={storage}", "lfs.allowincompletepush=true", "lfs.locksverify=false")
        options = (*options, *(word for pair in chosen for word in ("-c", pair)))
        update = f"refs/theta/ask {commit} refs/theta/ask {'0' * len(commit)}\n"
        result = command.attempt(
            ["git", *options, "lfs", "pre-push", name, remote.url],
            cwd=self._repo.top,
            stdin=update.encode(),
            env={**self._repo.environment(), **env},
        )
        words = decode(result.out) + result.err
        if result.status:
            raise _failed("ask", remote, words)
        return set(_MISSING.findall(words)) & objects.keys()

    # --- download --------------------------------------------------------------------------------

    def download(
        self,
        objects: Mapping[str, int],
        remote: Remote | None,
        deliver: Deliver,
        progress: Progress | None = None,
    ) -> None:
        """Fetch objects (oid to bytes) in one go and hand each to ``deliver`` as it comes.

        The file that ``deliver`` is given has the right size and, where git-lfs made it, is removed
        afterwards; whether it has the right content is for ``deliver`` to say. Without ``remote``
        only git-lfs's own storage is looked into. Raises ``TransferError`` when some did not come;
        the others were delivered.
        """
        if not objects:
            return
        meter = progress or NullProgress()
        meter.start("Downloading", sum(objects.values()))
        with self._lock():
            absent = dict(objects)
            for oid in self._present(objects):
                deliver(oid, self.media_path(oid))
                meter.advance(absent.pop(oid))
            if absent and remote is not None:
                self._fetch(absent, remote, deliver, meter)
        meter.finish()

    def obtain(
        self, objects: Mapping[str, int], remote: Remote, progress: Progress | None = None
    ) -> None:
        """Fetch objects (oid to bytes) into git-lfs's own storage, as `git lfs fetch` does.

        They stay there. Raises ``TransferError`` as ``download`` does.
        """
        meter = progress or NullProgress()
        meter.start("Downloading", sum(objects.values()))
        with self._lock():
            self._fetch(dict(objects), remote, None, meter)
        meter.finish()

    def _fetch(
        self, objects: dict[str, int], remote: Remote, deliver: Deliver | None, meter: Progress
    ) -> None:
        options, name = _named(remote)
        waiting = dict(objects)
        environment = self._repo.environment()
        try:
            with Download(self._repo.top, environment, options, name) as download:
                for oid in download.fetch(objects):
                    if oid in waiting and has_size(self.media_path(oid), objects[oid]):
                        if deliver:
                            self._hand_over(oid, deliver)
                        meter.advance(waiting.pop(oid))
                if waiting:
                    oid, size = next(iter(waiting.items()))
                    words = download.explain(oid, size)
                    count = plural(len(waiting), "object")
                    raise _failed(f"download {count} from", remote, words)
        except TransferError:
            self.require()  # as above
            raise

    def _hand_over(self, oid: str, deliver: Deliver) -> None:
        file = self.media_path(oid)
        try:
            deliver(oid, file)
        finally:
            with suppress(OSError):
                file.unlink()

    def _present(self, objects: Mapping[str, int]) -> list[str]:
        return [oid for oid, size in objects.items() if has_size(self.media_path(oid), size)]

    # --- both ------------------------------------------------------------------------------------

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One transfer at a time: the end of one would remove objects that another one reads."""
        with exclusive_lock(self._repo.theta_dir / "lfs.lock"):
            yield


def _named(remote: Remote) -> tuple[tuple[str, ...], str]:
    """Return options for git and a name, by which git-lfs takes any remote."""
    if remote.spec != remote.url:
        return (), remote.spec
    url = remote.folder.as_uri() if remote.folder else remote.url
    return ("-c", f"remote.{_UNNAMED}.url={url}"), _UNNAMED


def _check_arrival(remote: Remote, neighbour: Neighbour, sizes: Mapping[str, int]) -> None:
    """Look for the objects where a remote is a folder: git-lfs can succeed in doing nothing."""
    lacking = [oid for oid, size in sizes.items() if neighbour.find(oid, size) is None]
    if lacking:
        raise _failed("upload to", remote, f"object {short_id(lacking[0])} did not arrive there")


def _failed(what: str, remote: Remote, words: str) -> TransferError:
    said, refusal = refusals.lines(words) or ["git-lfs gave no reason"], refusals.find(words)
    if refusal:
        text = f"cannot {what} {remote.title}: {refusal.meaning}"
        return TransferError(text, details=said, hint=refusal.hint)
    hint = f"git lfs env; git ls-remote {shlex.quote(remote.title)}"
    return TransferError(f"cannot {what} {remote.title}: {said[0]}", details=said[1:], hint=hint)
