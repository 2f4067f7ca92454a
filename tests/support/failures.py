"""Real failures: no privileges, no room for a large file, processes that start together or die."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

_NOBODY = 65534
_PROJECT = Path(__file__).parents[2]


@contextmanager
def unprivileged() -> Iterator[None]:
    """Run as somebody whom permissions bind: root is never refused."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that everybody can look into, which pytest's are not; nobody but us may write."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write away from every file and folder below ``folder``."""
    modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*"))}
    for path, mode in modes.items():
        path.chmod(mode & 0o555)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``size`` bytes: writes then fail half-way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def on_tmpfs(options: str, script: str, folder: Path) -> str:
    """What ``script`` prints, run with a tmpfs of its own mounted at ``folder``.

    Skips the test where that needs rights that it does not have.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare, to mount a small disk")
    folder.mkdir()
    mount = f'mount -t tmpfs -o {options} none "$1" 2>/dev/null || exit 77; exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", mount, "sh", str(folder), sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(_PROJECT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"may not mount a small disk: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(script: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """A Python process that runs ``script``."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(_PROJECT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_together(script: str, calls: Sequence[Sequence[str | Path]]) -> list[str]:
    """What each process prints; all are released at once, when each has said that it is ready.

    ``script`` prints a line when it is ready and then waits for one.
    """
    processes = [start(script, *arguments) for arguments in calls]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60) for process in processes]
    for process, (_, error) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, error
    return [output for output, _ in outputs]


def kill_when(script: str, condition: Callable[[], bool], *arguments: str | Path) -> None:
    """Run ``script`` and kill it, with no chance to clean up, as soon as ``condition`` holds."""
    process = start(script, *arguments)
    deadline = time.monotonic() + 30
    try:
        while not condition():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "the moment to kill it never came"
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
