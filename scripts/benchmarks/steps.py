"""The steps that are measured, with each tool in turn: add, checkout, push, clone."""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Usage, measured
from benchmarks.sandbox import Project, folder_bytes


@dataclass(frozen=True)
class Files:
    """The two versions of the checkpoint."""

    base: Path
    fine_tune: Path


@dataclass(frozen=True)
class Step:
    """One measured command. What it needs first, and what must hold afterwards, is not timed."""

    name: str
    command: tuple[str, ...]
    prepare: Callable[[Project, Files], object] = lambda project, files: None
    finish: Callable[[Project, Files], object] = lambda project, files: None
    where: Callable[[Project], Path] = lambda project: project.work / ".git"
    copies: int = 1


@dataclass
class Result:
    """What a step took with each tool; ``stored`` is by how many bytes its repository grew."""

    step: str
    usage: dict[str, Usage] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    copy: float | None = None
    sync: float | None = None


def _same(copy: Path, original: Path) -> None:
    if not filecmp.cmp(copy, original, shallow=False):
        sys.exit(f"{copy} is not the file that was committed")


def steps() -> list[Step]:
    """Every step, in the order in which each needs the ones before."""
    add = ("git", "add", Project.checkpoint)
    commit = ("commit", "-q", "-m")
    return [
        Step(
            "add",
            add,
            prepare=lambda project, files: project.put(files.base),
            finish=lambda project, files: project.git(*commit, "Base"),
        ),
        Step(
            "add-fine-tune",
            add,
            prepare=lambda project, files: project.put(files.fine_tune),
            finish=lambda project, files: project.git(*commit, "Fine-tune"),
        ),
        Step("touch", add, prepare=lambda project, files: os.utime(project.file), copies=0),
        Step(
            "checkout-base",
            ("git", "checkout", "-q", "HEAD~1"),
            finish=lambda project, files: _same(project.file, files.base),
        ),
        Step(
            "checkout-fine-tune",
            ("git", "checkout", "-q", "main"),
            finish=lambda project, files: _same(project.file, files.fine_tune),
        ),
        Step(
            "push",
            ("git", "push", "-q", "origin", "main"),
            where=lambda project: project.remote,
            copies=2,
        ),
        Step(
            "clone",
            ("git", "clone", "-q", "file://{remote}", "{clone}"),
            finish=lambda project, files: _same(
                project.clone / project.checkpoint, files.fine_tune
            ),
            where=lambda project: project.clone / ".git",
        ),
    ]


def measure(step: Step, projects: list[Project], files: Files, scratch: Path) -> Result:
    """Run one step with every tool."""
    result = Result(step.name)
    if step.copies:
        result.copy, result.sync = _copy(files, scratch / "copy", step.copies)
    for project in projects:
        step.prepare(project, files)
        before = folder_bytes(step.where(project))
        os.sync()  # nobody pays for the pages that the step before left dirty
        command = [part.format(remote=project.remote, clone=project.clone) for part in step.command]
        tool = project.tool.name
        result.usage[tool] = measured(
            command, project.work, project.sandbox.environment, program=tool
        )
        result.stored[tool] = folder_bytes(step.where(project)) - before
        step.finish(project, files)
    return result


def _copy(files: Files, target: Path, copies: int) -> tuple[float, float]:
    """Seconds that ``cp`` takes for the same bytes, and the ``sync`` after it."""
    os.sync()
    begin = time.perf_counter()
    for source in (files.fine_tune, files.base)[:copies]:
        subprocess.run(["cp", source, target], check=True)
    middle = time.perf_counter()
    subprocess.run(["sync", "--file-system", target], check=True)
    end = time.perf_counter()
    target.unlink()
    return middle - begin, end - middle
