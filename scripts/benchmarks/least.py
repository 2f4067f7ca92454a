"""The least that a step takes: a copy and a sync, or Git with a filter that only reads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import measured
from benchmarks.sandbox import Project, Tool

_FILTER = f"{sys.executable} -I -S {Path(__file__).with_name('drain.py')}"
_DRAIN = Tool(
    "drain",
    (
        ("git", "config", "filter.drain.process", _FILTER),
        ("git", "config", "filter.drain.required", "true"),
    ),
)


def copied(sources: list[Path], target: Path) -> tuple[float, float]:
    """Seconds that ``cp`` takes for these files, and the ``sync`` after it."""
    os.sync()
    begin = time.perf_counter()
    for source in sources:
        subprocess.run(["cp", source, target], check=True)
    middle = time.perf_counter()
    subprocess.run(["sync", "--file-system", target], check=True)
    end = time.perf_counter()
    target.unlink()
    return middle - begin, end - middle


def touched(root: Path, source: Path) -> float:
    """Seconds of ``git add`` for a file that was only touched, with a filter that only reads."""
    attributes = root / "work" / ".gitattributes"
    attributes.parent.mkdir(parents=True)
    attributes.write_text("*.safetensors filter=drain -text\n", encoding="utf-8")
    project = Project(root, _DRAIN)
    project.put(source)
    project.git("add", project.checkpoint)
    os.utime(project.file)
    os.sync()
    command = ["git", "add", project.checkpoint]
    return measured(command, project.work, project.sandbox.environment, _DRAIN.name).seconds
