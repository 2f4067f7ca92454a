"""The steps that are measured, with each tool in turn: add, checkout, push, clone."""

from __future__ import annotations

import filecmp
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.least import copied
from benchmarks.measure import Usage, measured
from benchmarks.sandbox import Project, folder_bytes


@dataclass(frozen=True)
class Files:
    """The versions of the checkpoint: each of the others was made from the base."""

    base: Path
    fine_tune: Path
    lora: Path
    sparse: Path


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
    """What a step took with each tool, in each run.

    ``stored`` is by how many bytes its repository grew, in the last run. ``copy`` and ``sync`` are
    seconds of ``cp``, ``read`` those of ``git add`` with a filter that only reads.
    """

    step: str
    usage: dict[str, list[Usage]] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    copy: list[float] = field(default_factory=list)
    sync: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)

    @property
    def least(self) -> str:
        """What the step takes at least: to copy and sync its bytes, or to read them."""
        if self.copy:
            return f"{median(self.copy):.2f} + {median(self.sync):.2f} s"
        return f"{median(self.read):.2f} s" if self.read else "-"


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
            finish=lambda project, files: (
                project.git(*commit, "Base"),
                project.git("branch", "base"),
            ),
        ),
        Step(
            "add-fine-tune",
            add,
            prepare=lambda project, files: project.put(files.fine_tune),
            finish=lambda project, files: project.git(*commit, "Fine-tune"),
        ),
        Step("touch", add, prepare=lambda project, files: os.utime(project.file), copies=0),
        Step("status", ("git", "status", "--short"), copies=0),
        Step(
            "add-lora",
            add,
            prepare=lambda project, files: _from_base(project, "lora", files.lora),
            finish=lambda project, files: project.git(*commit, "Merge a LoRA"),
        ),
        Step(
            "add-sparse",
            add,
            prepare=lambda project, files: _from_base(project, "sparse", files.sparse),
            finish=lambda project, files: (
                project.git(*commit, "Change 1 %"),
                project.git("checkout", "-q", "main"),
            ),
        ),
        Step(
            "checkout-base",
            ("git", "checkout", "-q", "base"),
            finish=lambda project, files: _same(project.file, files.base),
        ),
        Step(
            "checkout-fine-tune",
            ("git", "checkout", "-q", "main"),
            finish=lambda project, files: _same(project.file, files.fine_tune),
        ),
        Step(
            "stash",
            ("git", "stash", "-q"),
            prepare=lambda project, files: project.put(files.lora),
            finish=_check_stashed,
            copies=2,
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


def _check_stashed(project: Project, files: Files) -> None:
    _same(project.file, files.fine_tune)
    project.git("stash", "drop", "-q")


def _from_base(project: Project, branch: str, source: Path) -> None:
    project.git("checkout", "-q", "-b", branch, "base")
    project.put(source)


def measure(
    step: Step, projects: list[Project], files: Files, scratch: Path, result: Result
) -> None:
    """Run one step once with every tool, and add to its result what it took."""
    if step.copies:
        copy, sync = copied([files.fine_tune, files.base][: step.copies], scratch / "copy")
        result.copy.append(copy)
        result.sync.append(sync)
    for project in projects:
        step.prepare(project, files)
        before = folder_bytes(step.where(project))
        os.sync()  # nobody pays for the pages that the step before left dirty
        command = [part.format(remote=project.remote, clone=project.clone) for part in step.command]
        tool = project.tool.name
        usage = measured(command, project.work, project.sandbox.environment, program=tool)
        result.usage.setdefault(tool, []).append(usage)
        result.stored[tool] = folder_bytes(step.where(project)) - before
        step.finish(project, files)
