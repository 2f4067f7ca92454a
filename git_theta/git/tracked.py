"""Which files of a commit the filter tracks, by the attributes that this commit has.

git 2.39 has no `check-attr --source`: the attributes files that count for a path are put into an
index of their own, and one `git check-attr --cached` answers for all commits that have the same.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import TracebackType

from git_theta.git.check_attr import CheckAttr, is_odd
from git_theta.git.command import encode
from git_theta.git.entries import Entry
from git_theta.git.repository import Repository

ATTRIBUTES = ".gitattributes"

# As git has it: a longer attributes file is not read (git 2.39.1 and newer).
_LONGEST = 100 << 20

_MOST = 8
"""Programs that are kept: a history changes its attributes a few times."""

State = tuple[tuple[str, str], ...]
"""Attributes files that count for some paths: the path of each, and its blob."""


class TrackedPaths:
    """Answers for the entries of one walk; a context manager, because it keeps programs running."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._programs: dict[State | None, _Program] = {}
        self._blob = lru_cache(1 << 14)(self._find_blob)

    def __enter__(self) -> TrackedPaths:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._programs:
            self._programs.popitem()[1].close()

    def covers(self, entry: Entry) -> bool:
        """Return whether the filter tracks an entry; true where its commit is not known."""
        if entry.commit is None:
            return True
        if is_odd(entry.path):
            return False
        folders = [str(folder) for folder in PurePosixPath(entry.path).parents]
        named = [ATTRIBUTES if folder == "." else f"{folder}/{ATTRIBUTES}" for folder in folders]
        blobs = ((name, self._blob(entry.commit, name)) for name in named)
        state = tuple((name, blob) for name, blob in blobs if blob)
        return self.filter_in(state, entry.path) == "theta"

    def filter_in(self, state: State, path: str) -> str:
        """Return the filter of ``path`` where the attributes files are those of ``state``."""
        return "unspecified" if is_odd(path) else self._program(state).filter_of(path)

    def covers_now(self, path: str) -> bool:
        """Return whether the filter tracks a path by the attributes of the work tree."""
        return not is_odd(path) and self._program(None).filter_of(path) == "theta"

    def _find_blob(self, commit: str, name: str) -> str | None:
        return self._repo.identify(f"{commit}:{name}", _LONGEST)

    def _program(self, state: State | None) -> _Program:
        if state not in self._programs:
            if len(self._programs) >= _MOST:
                self._programs.pop(next(iter(self._programs))).close()
            self._programs[state] = _Program(self._repo, state)
        return self._programs[state]


class _Program:
    """One `git check-attr`, with the attributes files of one state, or those of the work tree."""

    def __init__(self, repo: Repository, state: State | None) -> None:
        self._folder = TemporaryDirectory(prefix="git-theta-")
        env, source = dict[str, str](), []
        if state is not None:
            env = {"GIT_INDEX_FILE": str(Path(self._folder.name) / "index")}
            source = ["--cached"]
            _write_index(repo, state, env)
        self._asked = CheckAttr(repo.top, {**repo.environment(), **env}, "filter", source)

    def filter_of(self, path: str) -> str:
        """Return the filter of ``path``: its name, ``unset`` or ``unspecified``."""
        return self._asked.value(path)

    def close(self) -> None:
        """End the program."""
        self._asked.close()
        self._folder.cleanup()


def _write_index(repo: Repository, state: State, env: dict[str, str]) -> None:
    records = (f"100644 {blob} 0\t".encode() + encode(name) + b"\0" for name, blob in state)
    if state:
        repo.write_index(b"".join(records), env)
