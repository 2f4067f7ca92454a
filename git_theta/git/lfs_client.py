"""A client of ``git lfs filter-process``: the one way to ask git-lfs for many objects by name.

200 objects take 0.8 s; ``git lfs smudge`` for each takes 22 s, and ``git lfs fetch`` looks for
pointers in commits, where ours are not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryDirectory, TemporaryFile

from git_theta.errors import GitError, TransferError
from git_theta.git import command
from git_theta.git.command import decode
from git_theta.git.pktline import Content, PacketReader, PacketWriter
from git_theta.git.pointers import pointer_text

_PATIENCE_SECONDS = 10

_REASON = re.compile(r"Smudge error: .*?\([0-9a-f]{64}\): (.*)")


class Download:
    """One process of git-lfs that downloads into its own storage; a context manager.

    ``options`` go to git before ``lfs``. Raises ``TransferError`` with git-lfs's words when it
    ends early.
    """

    def __init__(
        self, cwd: Path, env: Mapping[str, str], options: Sequence[str], remote: str
    ) -> None:
        self._cwd = cwd
        self._env = {**env, "GIT_LFS_SKIP_SMUDGE": "0"}
        self._options = [*options, "-c", f"remote.lfsdefault={remote}"]
        self._stack = ExitStack()

    def __enter__(self) -> Download:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        # git-lfs adds its hooks to a repository that has none: into a folder that goes away.
        hooks = self._stack.enter_context(TemporaryDirectory(prefix="git-theta-"))
        self._words = self._stack.enter_context(TemporaryFile())  # noqa: SIM115 - the stack closes it
        # Users exclude paths from checkouts with the last two; an object is not a path.
        chosen = (f"core.hooksPath={hooks}", "lfs.fetchinclude=", "lfs.fetchexclude=")
        options = [*self._options, *(word for pair in chosen for word in ("-c", pair))]
        args = ["git", *options, "lfs", "filter-process"]
        process = command.start(args, cwd=self._cwd, env=self._env, errors=self._words)
        self._stack.callback(_end, process)
        assert process.stdin
        assert process.stdout
        self._writer = PacketWriter(process.stdin)
        self._reader = PacketReader(process.stdout)
        with self._talking():
            self._greet()

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _greet(self) -> None:
        self._writer.lines("git-filter-client", "version=2")
        list(self._reader.lines())
        # git-lfs wants to be offered all three.
        self._writer.lines("capability=clean", "capability=smudge", "capability=delay")
        if "capability=delay" not in list(self._reader.lines()):
            raise TransferError("git-lfs cannot delay", hint="install git-lfs 3.3 or newer")

    def fetch(self, objects: Mapping[str, int]) -> Iterator[str]:
        """Download objects (oid to bytes) that are not here; yield each oid as git-lfs is done.

        That says nothing about success: git-lfs 3.3 reports what failed in the same way.
        """
        waiting = set(objects)
        for oid, size in objects.items():
            if self._ask(oid, size, "can-delay=1"):
                waiting.discard(oid)
                yield oid
        # Not until the list is empty, as git does: git-lfs 3.3 crashes when it is asked once more
        # after it was done.
        while waiting:
            for oid in self._available():
                if oid in waiting:
                    waiting.discard(oid)
                    yield oid

    def _available(self) -> list[str]:
        with self._talking():
            self._writer.lines("command=list_available_blobs")
            paths = [line.removeprefix("pathname=") for line in self._reader.lines()]
            list(self._reader.lines())
        if not paths:
            raise TransferError(f"git-lfs gave up: {self._said()}")
        return paths

    def explain(self, oid: str, size: int) -> str:
        """Why an object did not come: asked for it alone, git-lfs says so, and ends."""
        with suppress(TransferError):
            self._ask(oid, size)
        found = _REASON.search(self._said())
        return found[1] if found else self._said()

    def _ask(self, oid: str, size: int, *extra: str) -> bool:
        """Request an object; true when it is here already, and nothing more will be said of it."""
        with self._talking():
            self._writer.lines("command=smudge", f"pathname={oid}", *extra)
            self._writer.data(pointer_text(oid, size))
            self._writer.end()
            if "status=success" not in list(self._reader.lines()):
                return False
            # git-lfs hands out the content; it is in its storage, too.
            Content(self._reader).drain()
            list(self._reader.lines())
            return True

    def _said(self) -> str:
        self._words.seek(0)
        return decode(self._words.read()).strip()

    @contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, GitError) as error:
            raise TransferError(f"git-lfs does not answer: {self._said()}") from error


def _end(process: Popen[bytes]) -> None:
    with process:
        assert process.stdin
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(timeout=_PATIENCE_SECONDS)
        except TimeoutExpired:
            process.kill()
