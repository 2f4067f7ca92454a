"""The machine that figures come from, and the start-up time of programs on it."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import measured
from benchmarks.sandbox import Sandbox


def machine(sandbox: Sandbox) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "git": sandbox.run("git", "version", cwd=sandbox.root).strip(),
        "git-lfs": sandbox.run("git", "lfs", "version", cwd=sandbox.root).strip(),
        "git-theta": sandbox.run("git", "theta", "--version", cwd=sandbox.root).strip(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def startup(root: Path, repetitions: int = 7) -> dict[str, float]:
    """Median seconds from starting a filter process to its answer, and of a bare Python."""
    sandbox = Sandbox(root)
    sandbox.run("git", "init", "-q", "startup", cwd=root)
    commands = {
        "git-theta": ["git-theta", "filter-process"],
        "git-lfs": ["git-lfs", "filter-process"],
    }
    medians = {
        name: statistics.median(_handshake(command, sandbox) for _ in range(repetitions))
        for name, command in commands.items()
    }
    bare = [
        measured([sys.executable, "-c", "pass"], root, sandbox.environment, "").seconds
        for _ in range(repetitions)
    ]
    return medians | {"bare python": statistics.median(bare)}


def _handshake(command: list[str], sandbox: Sandbox) -> float:
    begin = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=sandbox.root / "startup",
        env=sandbox.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # git-lfs remarks that nothing follows
        executable=shutil.which(command[0], path=sandbox.environment["PATH"]),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"0016git-filter-client\n000eversion=2\n0000")
        process.stdin.flush()
        answer = process.stdout.read(len(b"0016git-filter-server\n"))
        elapsed = time.perf_counter() - begin
        process.stdin.close()
        process.wait()
    if not answer.endswith(b"git-filter-server\n"):
        sys.exit(f"{' '.join(command)} answered {answer!r}")
    return elapsed
