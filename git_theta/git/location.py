"""The folders of a repository."""

from __future__ import annotations

import os
from pathlib import Path

from git_theta.errors import GitError, NotARepositoryError, UntrustedRepositoryError
from git_theta.git import command
from git_theta.git.command import decode


def locate(start: Path | None) -> tuple[Path, Path, Path | None]:
    """Return git directory, common one and work tree (if any) around ``start``, absolute.

    Raises ``NotARepositoryError``, also where git refuses a repository that someone else owns.
    """
    asked = ["--path-format=absolute", "--git-dir", "--git-common-dir", "--show-toplevel"]
    # Without a work tree git prints the first two and then fails.
    result = command.attempt(["git", "rev-parse", *asked], cwd=start)
    lines = decode(result.out).splitlines()
    if len(lines) < 2:
        raise _not_found(start, result.err)
    if len(lines) > 3:
        raise GitError("a repository whose path holds a line break cannot be used")
    return Path(lines[0]), Path(lines[1]), Path(lines[2]) if len(lines) > 2 else None


def environment(git_dir: Path, common_dir: Path, work_tree: Path | None) -> dict[str, str]:
    """git's own variables, where they are set, such that they are right in any folder."""
    places = {"GIT_DIR": git_dir, "GIT_COMMON_DIR": common_dir, "GIT_WORK_TREE": work_tree}
    return {
        name: str(place)
        for name, place in places.items()
        if place is not None and os.environ.get(name)
    }


def _not_found(start: Path | None, words: str) -> NotARepositoryError:
    where = str(start or Path.cwd())
    # git names this setting in the command that it proposes, whatever the language.
    for line in words.splitlines():
        if "safe.directory " in line:
            return UntrustedRepositoryError(
                "git does not trust this repository: another user owns it",
                path=where,
                hint=line.strip(),
            )
    return NotARepositoryError("not inside a Git repository", path=where, hint="git init")
