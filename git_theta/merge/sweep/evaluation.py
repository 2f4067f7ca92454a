"""The user's command that scores a merged model: run for each point, or started once for all."""

from __future__ import annotations

import shlex
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from git_theta.errors import MergeError, UsageError
from git_theta.git import command
from git_theta.git.command import decode, encode
from git_theta.merge.sweep.scores import parse_scores

MODEL, FOLDER = "{model}", "{folder}"
_SHOWN = 5
# Seconds for a command to end by itself, once it has been told that there is nothing more.
_PATIENCE = 10


class Evaluation(Protocol):
    """Scores what lies in a folder: ``model`` is the merged checkpoint, if there is only one."""

    def score(self, model: Path | None, folder: Path) -> dict[str, float]:
        """Return the scores; raise ``MergeError`` where there are none."""
        ...

    def close(self) -> None:
        """End what is running."""
        ...


class Each:
    """A command that is run for each point; its last line is the score."""

    def __init__(self, text: str) -> None:
        self._text = text
        if MODEL not in text and FOLDER not in text:
            raise UsageError(
                f"--eval {text!r} names no model",
                hint=f"{MODEL} in it stands for the merged checkpoint, {FOLDER} for the merged "
                "tree; --server is for a command that reads paths",
            )

    def score(self, model: Path | None, folder: Path) -> dict[str, float]:
        """Run the command; what it writes to standard error goes to the user."""
        text = self._text.replace(FOLDER, shlex.quote(str(folder)))
        if MODEL in text:
            text = text.replace(MODEL, shlex.quote(str(_only(model, FOLDER))))
        result = command.attempt(["/bin/sh", "-c", text], cwd=Path.cwd(), show_errors=True)
        output = decode(result.out)
        if result.status:
            last = " / ".join(output.strip().splitlines()[-_SHOWN:])
            said = f"the evaluation failed with status {result.status}"
            raise MergeError(f"{said}: {last}" if last else said)
        return parse_scores(output)

    def close(self) -> None:
        """Nothing is running."""


class Server:
    """A command that is started once: it reads a path a line, and answers with a line each.

    Importing torch and transformers took 6 s of processor time for each point.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._process: subprocess.Popen[bytes] | None = None

    def score(self, model: Path | None, folder: Path) -> dict[str, float]:
        """Send the path of the checkpoint, and return what the next line says."""
        if self._process is None:
            args = ["/bin/sh", "-c", self._text]
            self._process = command.start(args, cwd=Path.cwd())
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):
            self._process.stdin.write(encode(f"{_only(model, 'CMD without --server')}\n"))
            self._process.stdin.flush()
        if line := self._process.stdout.readline():
            return parse_scores(decode(line))
        status = self._end()  # it is started again for the next point
        raise MergeError(f"the evaluation ended with status {status}, without an answer")

    def close(self) -> None:
        """Let the command end: there is no further line."""
        if self._process is not None:
            self._end()

    def _end(self) -> int:
        """Close the pipes, and return the exit status; kill what does not end by itself."""
        assert self._process is not None
        process, self._process = self._process, None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        try:
            return process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def _only(model: Path | None, instead: str) -> Path:
    if model is None:
        raise UsageError(
            f"several checkpoints are merged, and {MODEL} is one", hint=f"use {instead}"
        )
    return model
