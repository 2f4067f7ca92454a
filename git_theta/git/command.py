"""The one place that starts other programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from git_theta.errors import GitError, MissingToolError

Environment = Mapping[str, str | None]

_INSTALL = {
    "git": "install git 2.31 or newer",
    "git-lfs": "install git-lfs 3.3 or newer, for example: apt install git-lfs",
}


class Result(NamedTuple):
    """The exit status of a program and its two outputs."""

    status: int
    out: bytes
    err: str


def run(
    args: Sequence[str],
    *,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    env: Environment | None = None,
    check: bool = True,
    show_errors: bool = False,
    has_terminal: bool = True,
) -> bytes:
    """Return the standard output of a program.

    Without ``check``, of whatever status. ``env`` changes the environment (``None`` unsets). With
    ``show_errors`` standard error goes to the user as it comes (progress, questions for
    passwords) and is not in the exception. Without ``has_terminal`` there are no such questions.
    Raises ``GitError`` with the program's own words, or ``MissingToolError`` when it is not
    installed.
    """
    result = attempt(
        args, cwd=cwd, stdin=stdin, env=env, show_errors=show_errors, has_terminal=has_terminal
    )
    if check and result.status:
        raise failure(args, result)
    return result.out


def attempt(
    args: Sequence[str],
    *,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    env: Environment | None = None,
    show_errors: bool = False,
    has_terminal: bool = True,
) -> Result:
    """Run a program and say how it ended; raises ``MissingToolError`` only."""
    source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    errors = None if show_errors else subprocess.PIPE
    process = start(args, cwd=cwd, env=env, source=source, errors=errors, has_terminal=has_terminal)
    with process:
        out, err = process.communicate(stdin)
    return Result(process.returncode, out, decode(err or b""))


def start(
    args: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Environment | None = None,
    source: int | IO[bytes] | None = subprocess.PIPE,
    errors: int | IO[bytes] | None = None,
    has_terminal: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a program whose output is a pipe; the caller ends it.

    Its input is a pipe too, or ``source``. Standard error is the user's, or ``errors``.
    """
    try:
        return subprocess.Popen(
            list(args),
            cwd=cwd,
            env=_environment(env) if env else None,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=not has_terminal,
        )
    except FileNotFoundError as error:
        # The same exception says that ``cwd`` is gone; that is not a missing program.
        if cwd is not None and not cwd.is_dir():
            raise GitError("the folder does not exist", path=str(cwd)) from error
        raise missing_tool(args[0]) from error
    except PermissionError as error:
        raise missing_tool(args[0]) from error


def _environment(changes: Environment) -> dict[str, str]:
    merged = {**os.environ, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def missing_tool(program: str) -> MissingToolError:
    """Return the error that ``program`` is not installed, and how to fix it."""
    return MissingToolError(f"{program} cannot be found or run", hint=_INSTALL.get(program))


def failure(args: Sequence[str], result: Result) -> GitError:
    """Why a command failed, in its own words."""
    # What comes after ``-c key=value`` options of git says more than they do.
    first = next((at for at in range(1, len(args), 2) if args[at] != "-c"), 1)
    name = (args[0], *args[first : first + 1])
    words, *more = result.err.strip().splitlines() or [f"exit status {result.status}"]
    return GitError(f"{' '.join(name)} failed: {words}", details=more)


def decode(output: bytes) -> str:
    """Text of a program, with bytes that are not UTF-8 kept as surrogates."""
    return output.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """Return the opposite of ``decode``."""
    return text.encode("utf-8", "surrogateescape")
