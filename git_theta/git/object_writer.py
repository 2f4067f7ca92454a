"""New objects of any type, written by one `git hash-object` for each type."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from git_theta.core.os_errors import store_error
from git_theta.errors import GitError
from git_theta.git import command
from git_theta.git.command import decode, encode
from git_theta.git.repository import Repository


class ObjectWriter:
    """Writes objects; a context manager, because it keeps programs running.

    A process for each object would cost 3 ms; a history has three objects to a commit.
    """

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._stack = ExitStack()
        self._programs: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> ObjectWriter:
        folder = TemporaryDirectory(prefix="git-theta-")
        self._file = Path(self._stack.enter_context(folder)) / "object"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def write(self, kind: str, content: bytes) -> str:
        """Write an object of type ``kind``, such as ``tree``; return its id."""
        try:
            self._file.write_bytes(content)
        except OSError as error:
            raise store_error(error, self._file) from error
        return self.write_file(kind, self._file)

    def write_file(self, kind: str, file: Path) -> str:
        """Write an object whose content is that of ``file``, as it is; return its id."""
        program = self._programs.get(kind) or self._start(kind)
        assert program.stdin
        assert program.stdout
        try:
            program.stdin.write(encode(str(file)) + b"\n")
            program.stdin.flush()
        except BrokenPipeError:
            pass
        if not (made := decode(program.stdout.readline()).strip()):
            assert program.stderr
            words = decode(program.stderr.read()).strip()
            raise GitError(f"git hash-object cannot write a {kind}: {words}", hint="git fsck")
        return made

    def _start(self, kind: str) -> subprocess.Popen[bytes]:
        # Old commits that today's Git would not make must stay as they are.
        options = ("-w", "-t", kind, "--literally", "--no-filters", "--stdin-paths")
        program = command.start(
            ["git", "hash-object", *options],
            cwd=self._repo.top,
            env=self._repo.environment(),
            errors=subprocess.PIPE,
        )
        self._stack.callback(_end, program)
        self._programs[kind] = program
        return program


def _end(program: subprocess.Popen[bytes]) -> None:
    with program:
        program.kill()
