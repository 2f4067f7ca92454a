"""Runs a command in which the N-th call that changes a file is the last, or fails."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Action = Literal["kill", "enospc", "eio"]
ACTIONS: tuple[Action, ...] = ("kill", "enospc", "eio")

# Nothing that is measured here may hang for longer.
TIMEOUT = 60.0
_PATIENCE = 5.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit status (negative: killed by a signal) and what it said."""

    status: int
    words: str
    calls: int


class Faults:
    """The library that counts and fails calls; compiled once into ``folder``."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise FileNotFoundError("a C compiler is needed to make calls fail")
        source = Path(__file__).with_name("faults.c")
        self._library = folder / "faults.so"
        self._counter = folder / "calls"
        command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(self._library), str(source)]
        subprocess.run([*command, "-ldl"], check=True)

    def run(
        self,
        command: Sequence[str],
        cwd: Path,
        root: Path,
        environment: Mapping[str, str],
        at: int = 0,
        action: Action = "kill",
    ) -> Outcome:
        """Run ``command``; call number ``at`` below ``root`` is the fault's (0: none, count only).

        A kill ends every process of the command, as when the machine stops. Raises
        ``subprocess.TimeoutExpired`` when the command hangs.
        """
        self._counter.write_bytes(bytes(8))
        done = subprocess.run(
            command,
            cwd=cwd,
            env=self._environment(root, environment, at, action),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            start_new_session=True,
        )
        words = (done.stdout + done.stderr).decode(errors="replace")
        calls = int.from_bytes(self._counter.read_bytes(), "little")
        return Outcome(done.returncode, words, calls)

    def run_beside(
        self,
        command: Sequence[str],
        cwd: Path,
        root: Path,
        environment: Mapping[str, str],
        at: int,
        other: Sequence[str],
    ) -> tuple[int, int]:
        """Run ``other`` while ``command`` is stopped before its call number ``at``; both statuses.

        One that waits for the stopped one is given a while, then the stopped one goes on. Raises
        ``subprocess.TimeoutExpired`` when one of them hangs.
        """
        self._counter.write_bytes(bytes(8))
        first = _start(command, cwd, self._environment(root, environment, at, "stop"))
        try:
            _wait_until_stopped(first)
            second = _start(other, cwd, environment)
            with suppress(subprocess.TimeoutExpired):
                second.wait(_PATIENCE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(first.pid, signal.SIGCONT)
        return first.wait(TIMEOUT), second.wait(TIMEOUT)

    def _environment(
        self, root: Path, environment: Mapping[str, str], at: int, action: str
    ) -> dict[str, str]:
        return {
            **environment,
            "LD_PRELOAD": str(self._library),
            "FAULT_ROOT": f"{root}/",
            "FAULT_COUNTER": str(self._counter),
            "FAULT_AT": str(at),
            "FAULT_ACTION": action,
        }


def _start(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that a signal for one reaches no other."""
    nothing = subprocess.DEVNULL
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=nothing,
        stdout=nothing,
        stderr=nothing,
        start_new_session=True,
    )


def _wait_until_stopped(first: subprocess.Popen[bytes]) -> None:
    """Return when a process of the command is stopped, or the command has ended."""
    deadline = time.monotonic() + TIMEOUT
    while first.poll() is None and not any(_stopped(first.pid)):
        if time.monotonic() > deadline:
            raise subprocess.TimeoutExpired(first.args, TIMEOUT)
        time.sleep(0.01)


def _stopped(group: int) -> Iterator[bool]:
    for process in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, found = process.read_text().rpartition(")")[2].split()[:3]
            yield state == "T" and int(found) == group
