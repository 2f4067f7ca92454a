"""Time and memory of a command together with every process that it starts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_INTERVAL = 0.02
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Usage:
    """Seconds, and peaks of resident memory in bytes (0 where the system has no /proc).

    ``tree`` is the largest sum over all processes at one moment (memory that they share counts
    for each); ``program`` is the largest of the processes whose command line names the program.
    """

    seconds: float
    tree: int = 0
    program: int = 0


def measured(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], program: str
) -> Usage:
    """Run ``command``; a failure ends the script with what it printed."""
    begin = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        sampler = _Sampler(process.pid, program)
        sampler.start()
        output, _ = process.communicate()
        seconds = time.perf_counter() - begin
        sampler.finish()
    if process.returncode:
        sys.exit(
            f"{' '.join(command)} failed in {cwd} (exit code {process.returncode}):\n"
            f"{output.decode(errors='replace')}"
        )
    return Usage(seconds, sampler.tree, sampler.program)


class _Sampler(threading.Thread):
    def __init__(self, pid: int, program: str) -> None:
        super().__init__(daemon=True)
        self.tree = 0
        self.program = 0
        self._pid = pid
        self._program_name = program
        self._finished = threading.Event()

    def run(self) -> None:
        while not self._finished.wait(_INTERVAL):
            processes = list(_family(self._pid))
            self.tree = max(self.tree, sum(map(_resident, processes)))
            for pid in processes:
                if _runs(pid, self._program_name):
                    self.program = max(self.program, _highest(pid))

    def finish(self) -> None:
        self._finished.set()
        self.join()


def _family(pid: int) -> Iterator[int]:
    yield pid
    for children in _PROC.glob(f"{pid}/task/*/children"):
        for child in _read_file(children).split():
            yield from _family(int(child))


def _runs(pid: int, program: str) -> bool:
    """Whether the command is ``program``, or an interpreter's ``program`` or ``-m program``."""
    words = _read(pid, "cmdline").decode(errors="replace").split("\0")[:3]
    return any(Path(word).name.replace("_", "-") == program for word in words)


def _resident(pid: int) -> int:
    fields = _read(pid, "statm").split()
    return int(fields[1]) * _PAGE if fields else 0


def _highest(pid: int) -> int:
    """The peak so far, which the kernel keeps: only growth after the last sample is missed."""
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def _read(pid: int, name: str) -> bytes:
    return _read_file(_PROC / str(pid) / name)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process is gone
        return b""
