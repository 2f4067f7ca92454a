"""One attribute of many paths, asked of a single `git check-attr`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from git_theta.errors import GitError
from git_theta.git import command
from git_theta.git.command import Environment, decode, encode

_ODD = {"", ".", ".."}


def is_odd(path: str) -> bool:
    """Tell whether no checkout makes such a file: git ends when it is asked about it."""
    return not _ODD.isdisjoint(path.split("/"))


class CheckAttr:
    """A `git check-attr` that is kept running; each path is asked about once."""

    def __init__(
        self, cwd: Path, env: Environment, attribute: str, options: Sequence[str] = ()
    ) -> None:
        asked = ["git", "check-attr", *options, "-z", "--stdin", attribute]
        self._process = command.start(asked, cwd=cwd, env=env, errors=subprocess.DEVNULL)
        self._known: dict[str, str] = {}

    def value(self, path: str) -> str:
        """Return the attribute of ``path``: its value, ``set``, ``unset`` or ``unspecified``."""
        if path not in self._known:
            self._known[path] = self._ask(path)
        return self._known[path]

    def _ask(self, path: str) -> str:
        process = self._process
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(encode(path) + b"\0")
            process.stdin.flush()
            answer = b""
            while answer.count(b"\0") < 3:
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece:
                    raise EOFError
                answer += piece
        except (BrokenPipeError, EOFError) as error:
            raise GitError("git check-attr ended early", hint="git fsck") from error
        return decode(answer.split(b"\0")[2])

    def close(self) -> None:
        """End the program."""
        with suppress(BrokenPipeError):
            self._process.kill()
            self._process.communicate()
