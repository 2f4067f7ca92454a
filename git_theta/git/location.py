"""The folders of a repository."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from git_theta.errors import GitError, NotARepositoryError, UntrustedRepositoryError
from git_theta.git import command
from git_theta.git.command import decode

_VARIABLE = re.compile(r"GIT_[A-Z_]+")


class Location(NamedTuple):
    """The git directory, the one that all work trees share, the folder of hooks, the work tree.

    ``local_variables`` are those that say the like: nothing of them counts in another repository.
    """

    git_dir: Path
    common_dir: Path
    hooks_dir: Path
    work_tree: Path | None
    local_variables: tuple[str, ...]


def locate(start: Path | None) -> Location:
    """Return the folders of the repository around ``start``, absolute.

    Raises ``NotARepositoryError``, also where git refuses a repository that someone else owns.
    """
    asked = ["--local-env-vars", "--git-dir", "--git-common-dir", "--git-path", "hooks"]
    asked += ["--show-toplevel"]
    # Without a work tree git prints all but the last and then fails.
    result = command.attempt(["git", "rev-parse", "--path-format=absolute", *asked], cwd=start)
    printed = decode(result.out).splitlines()
    variables = tuple(line for line in printed if _VARIABLE.fullmatch(line))
    lines = [Path(line) for line in printed[len(variables) :]]
    if len(lines) < 3:
        raise _not_found(start, result.err)
    if len(lines) > 4:
        raise GitError("a repository whose path holds a line break cannot be used")
    git_dir, common_dir, hooks_dir, *work_tree = lines
    return Location(git_dir, common_dir, hooks_dir, work_tree[0] if work_tree else None, variables)


def environment(location: Location) -> dict[str, str]:
    """git's own variables, where they are set, such that they are right in any folder."""
    places = {
        "GIT_DIR": location.git_dir,
        "GIT_COMMON_DIR": location.common_dir,
        "GIT_WORK_TREE": location.work_tree,
    }
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
