"""How tracked files that Git holds whole are told of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict

from git_theta.cli.text import human
from git_theta.commands.whole_files import WholeFile, remedy
from git_theta.core.messages import plural, short_id
from git_theta.git import Repository

_SHOWN = 10


def lines(repo: Repository, files: Sequence[WholeFile], folder: str = ".") -> list[str]:
    """Return a line for each file: path, size, commit and the way out; of many the first ten.

    Paths are given as they are typed in ``folder``, which is relative to the top.
    """
    told = [_line(repo, file, os.path.relpath(file.path, folder)) for file in files[:_SHOWN]]
    if more := len(files) - _SHOWN:
        told += [f"and {plural(more, 'more file')} like these"] if more > 0 else []
    return told


def documents(repo: Repository, files: Sequence[WholeFile]) -> list[dict[str, object]]:
    """Return a row for each file, as JSON takes it, with the command that mends it."""
    return [{**asdict(file), "fix": remedy(repo, file, file.path)} for file in files]


def _line(repo: Repository, file: WholeFile, path: str) -> str:
    since = f"since {short_id(file.commit)}" if file.commit else "staged"
    what = "a Git LFS pointer" if file.is_pointer else f"{human(file.size)}, stored whole by Git"
    return f"{path}: {what} ({since}): {remedy(repo, file, path)}"
