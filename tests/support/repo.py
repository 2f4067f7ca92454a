"""A real repository to drive with real git."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

# Git cleans a file again whose time is not older than the index's, to the second: two of the eight
# filters of a test of merging were for that. No two times are the same: every change is seen.
_times = itertools.count(int(time.time()) - 1_000_000)


class GitFailedError(AssertionError):
    """A git command of a test ended with an unexpected status."""


class Repo:
    """A repository in a temporary folder; bare where it has no work tree."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def init(cls, path: Path, *options: str) -> Repo:
        """A new repository at ``path``."""
        path.mkdir(parents=True, exist_ok=True)
        repo = cls(path)
        repo.git("init", "-q", *options)
        return repo

    @classmethod
    def clone(cls, url: str | Path, path: Path, *options: str) -> Repo:
        """A clone of ``url`` at ``path``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        cls(path.parent).git("clone", "-q", *options, str(url), str(path))
        return cls(path)

    def process(
        self,
        *args: str,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git and hand back status and output, whatever they are."""
        return subprocess.run(
            ["git", *args],
            cwd=cwd or self.path,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            check=False,
            env={**os.environ, **env} if env else None,
        )

    def git(
        self,
        *args: str,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> str:
        """What git prints, without the final newline; fails when git fails."""
        done = self.process(*args, stdin=stdin, env=env, cwd=cwd)
        if done.returncode:
            error = done.stderr.decode(errors="replace")
            raise GitFailedError(f"git {' '.join(args)}: status {done.returncode}\n{error}")
        return done.stdout.decode(errors="surrogateescape").removesuffix("\n")

    def write(self, path: str, content: bytes) -> Path:
        """Write a file of the work tree, and make it look older than the index."""
        target = self.path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        moment = next(_times)
        os.utime(target, (moment, moment))
        return target

    def read(self, path: str) -> bytes:
        """The bytes of a file of the work tree."""
        return (self.path / path).read_bytes()

    def commit(self, message: str = "change", **files: bytes) -> str:
        """Commit ``files`` (and what is staged already); the new commit's id."""
        for path, content in files.items():
            self.write(path, content)
        listed = b"".join(os.fsencode(path) + b"\0" for path in files)
        self.git(
            "--literal-pathspecs",
            "add",
            "--pathspec-from-file=-",
            "--pathspec-file-nul",
            stdin=listed,
        )
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def commit_files(self, files: Mapping[str, bytes], message: str = "change") -> str:
        """Like ``commit``, for paths that are not Python names."""
        return self.commit(message, **files)
