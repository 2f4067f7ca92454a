"""Time and memory of a command together with every process that it starts."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_INTERVAL = 0.02


@dataclass(frozen=True)
class Usage:
    """Seconds of the clock and of processors, and peaks of resident memory in bytes.

    Memory is sampled every 20 ms. ``tree`` is the largest sum over all processes at one moment
    (memory that they share counts for each); ``program`` is the largest of the processes whose
    command line names the program.
    """

    seconds: float
    tree: int = 0
    program: int = 0
    processor: float = 0.0


def measured(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], program: str
) -> Usage:
    """Run ``command``; a failure ends the script with what it printed."""
    begin, before = time.perf_counter(), _processor()
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
    return Usage(seconds, sampler.tree, sampler.program, _processor() - before)


def _processor() -> float:
    """Seconds of processors that programs took which this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class _Sampler(threading.Thread):
    def __init__(self, pid: int, program: str) -> None:
        super().__init__(daemon=True)
        self.tree = 0
        self.program = 0
        self._process = psutil.Process(pid)
        self._program_name = program
        self._finished = threading.Event()

    def run(self) -> None:
        while not self._finished.wait(_INTERVAL):
            sizes = [(process, _resident(process)) for process in self._family()]
            self.tree = max(self.tree, sum(size for _, size in sizes))
            of_program = (size for process, size in sizes if _runs(process, self._program_name))
            self.program = max(self.program, *of_program, 0)

    def finish(self) -> None:
        self._finished.set()
        self.join()

    def _family(self) -> list[psutil.Process]:
        with suppress(psutil.Error):  # it has just ended
            return [self._process, *self._process.children(recursive=True)]
        return []


def _resident(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0


def _runs(process: psutil.Process, program: str) -> bool:
    """Whether the command is ``program``, or an interpreter's ``program`` or ``-m program``."""
    with suppress(psutil.Error):
        words = process.cmdline()[:3]
        return any(Path(word).name.replace("_", "-") == program for word in words)
    return False
