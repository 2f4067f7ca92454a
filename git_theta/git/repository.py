"""A repository as git's plumbing shows it: from filters, hooks, work trees and bare ones alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from git_theta.core.messages import short_id
from git_theta.errors import GitError
from git_theta.git import command, entries
from git_theta.git.batch import Batch, Peeked
from git_theta.git.command import decode
from git_theta.git.config_reader import ConfigReader
from git_theta.git.configured_remotes import ConfiguredRemotes
from git_theta.git.entries import Entry
from git_theta.git.location import Location, environment, locate
from git_theta.git.team import read_team_file

MANIFEST_PREFIX = b'{"git-theta":'
MANIFEST_LIMIT = 256 << 20
"""Bytes. A longer blob is no manifest, and is not read."""


class Repository:
    """A repository: its folders, and access to what is in it.

    ``git_dir`` is this work tree's own, ``common_dir`` the one that all work trees share; both
    are absolute, as is ``hooks_dir``, where git looks for hooks, which ``core.hooksPath`` may
    say. ``work_tree`` is ``None`` in a bare repository and inside ``.git``. ``folder``
    is where the user is: revisions such as ``HEAD:./x``, and paths, are relative to it.
    """

    def __init__(
        self,
        location: Location,
        folder: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._location = location
        self.git_dir, self.common_dir, self.hooks_dir, self.work_tree = location[:4]
        self.local_variables = location.local_variables
        self.folder = folder or self.top
        self._env = {**environment(location), **(variables or {})}
        self._batch = Batch(self.top, self._env)
        self._index_stamp: tuple[int, int, int] | None = None
        self._config = ConfigReader(self.top, self._env)
        self._remotes = ConfiguredRemotes(self.git, self._config, self.common_dir)
        self._peeked: tuple[str, int, Peeked | None] | None = None

    @classmethod
    def discover(cls, start: Path | None = None) -> Repository:
        """Return the repository around ``start`` (the current folder), or the one that git says.

        Obeys ``GIT_DIR`` and its companions, which git sets for filters and hooks. Raises
        ``NotARepositoryError``, also where git refuses a repository that someone else owns.
        """
        return cls(locate(start), folder=(start or Path()).absolute())

    def with_variables(self, variables: Mapping[str, str]) -> Repository:
        """Return this repository, whose git commands run with ``variables``; close it, too."""
        return Repository(self._location, self.folder, variables={**self._env, **variables})

    @property
    def top(self) -> Path:
        """The folder where git commands run: the top of the work tree, or the git directory."""
        return self.work_tree or self.git_dir

    @property
    def theta_dir(self) -> Path:
        """Our own folder, shared by all work trees."""
        return self.common_dir / "theta"

    def close(self) -> None:
        """End the processes that were kept for later questions."""
        self._batch.close()

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def git(
        self,
        *args: str,
        stdin: bytes | None = None,
        env: dict[str, str] | None = None,
        check: bool = True,
        show_errors: bool = False,
        has_terminal: bool = True,
    ) -> bytes:
        """Return the output of a git command, run at the top; see ``command.run``."""
        return command.run(
            ["git", *args],
            cwd=self.top,
            stdin=stdin,
            env={**self._env, **(env or {})},
            check=check,
            show_errors=show_errors,
            has_terminal=has_terminal,
        )

    def write_index(self, records: bytes, env: dict[str, str]) -> None:
        """Write records (git-update-index(1)) to the index, or to one that ``env`` names.

        No hook runs: ours would start a shell and a git to find that there is nothing to do.
        """
        options = ("-c", f"core.hooksPath={os.devnull}")
        self.git(*options, "update-index", "-z", "--index-info", stdin=records, env=env)

    def environment(self) -> dict[str, str]:
        """Return variables for a program that is to work on this repository."""
        return dict(self._env)

    # --- settings --------------------------------------------------------------------------------

    def read_settings_once(self) -> None:
        """Answer all questions about settings from what they are now; asking git takes 4 ms each.

        For hooks and filters, which serve one command of git and change none.
        """
        self._config.read_once()

    def config(self) -> dict[str, str]:
        """All ``theta.*`` settings of git's configuration, keys in lower case."""
        return self.config_of("theta")

    def config_of(self, *sections: str) -> dict[str, str]:
        """Return the settings ``<section>.*``, the last of each; no value (true) is empty."""
        return self._config.sections(sections)

    def config_value(self, key: str) -> str | None:
        """One setting, or ``None``; ``config_of`` cannot tell cases of a subsection apart."""
        return self._config.value(key)

    def team_settings(self) -> dict[str, Any]:
        """Return the settings of ``.theta.toml`` at the root of the work tree, if it is there."""
        return {} if self.work_tree is None else read_team_file(self.work_tree)

    def has_remote(self, name: str) -> bool:
        """Return whether there is a remote of that name."""
        return name in self._remotes.names()

    def remote_urls(self, name: str, push: bool = False) -> list[str]:
        """Return where fetches from a remote go first, or all pushes; nothing without one."""
        return self._remotes.urls(name, push)

    def remotes(self) -> list[str]:
        """Return the names of the remotes by preference: upstream's, ``origin``, others."""
        return self._remotes.by_preference()

    def default_remote(self) -> str | None:
        """Return the remote of the current branch's upstream, or ``remote.pushDefault``."""
        return self._remotes.default()

    # --- objects ---------------------------------------------------------------------------------

    def resolve(self, rev: str) -> str | None:
        """Return the id of the object that ``rev`` names and this repository has, or ``None``."""
        # The suffix asks whether the object exists; after a colon it would be part of the path.
        name = rev if ":" in rev else f"{rev}^{{object}}"
        args = ("rev-parse", "--quiet", "--verify", "--end-of-options", name)
        return decode(self.git(*args, check=False)).strip() or None

    def head(self) -> str | None:
        """Return the id of HEAD's commit, or ``None`` before the first one.

        For each of many files: `git rev-parse` takes 3 ms, this 0.1.
        """
        return self._batch.name("HEAD")

    def read_blob(self, spec: str, limit: int = MANIFEST_LIMIT) -> bytes | None:
        """Return the content of an object id, ``HEAD:path`` or ``:path`` (the index, stage 0).

        ``None`` when it is missing, no blob, or over ``limit`` bytes.
        """
        if spec.startswith(":"):
            self._renew_index()
            spec = f":0:{spec[1:]}"  # else a path such as "1:x" would name a stage
        if "\n" in spec:
            spec = self.resolve(spec) or ""
        return self._batch.read(spec, limit) if spec else None

    def peek_staged(self, path: str, length: int) -> Peeked | None:
        """Return what the index has at ``path`` (stage 0), with its first ``length`` bytes.

        Git is asked once about the last path, until the index is another.
        """
        self._renew_index()
        last = self._peeked  # of whichever thread
        if last is None or last[:2] != (path, length):
            spec = f":0:{path}"
            found = self.resolve(spec) if "\n" in path else spec
            last = path, length, self._batch.peek(found, length) if found else None
            self._peeked = last
        return last[2]

    def peek(self, blob: str, length: int) -> Peeked | None:
        """Return what ``blob`` is, with its first ``length`` bytes; ``None`` without one."""
        return self._batch.peek(blob, length)

    def load(self, name: str) -> tuple[str, bytes]:
        """Return type and content of the object with id ``name``; ``GitError`` without it."""
        found = self._batch.load(name)
        if found is None:
            raise GitError(f"object {short_id(name)} is missing", hint="git fsck; git fetch")
        return found

    def identify(self, spec: str, limit: int = MANIFEST_LIMIT) -> str | None:
        """Return the id of a blob, given as ``COMMIT:path``; ``None`` as for ``read_blob``."""
        if "\n" in spec:
            return self.resolve(spec)
        return self._batch.identify(spec, limit)

    def _renew_index(self) -> None:
        # cat-file keeps the index that it read first; a rebase writes many while we serve it.
        stamp = self.index_stamp()
        if stamp != self._index_stamp:
            self._batch.renew()
            self._peeked = None
            self._index_stamp = stamp

    def index_stamp(self) -> tuple[int, int, int] | None:
        """Return inode, bytes and time (ns) of the index, another whenever git has written it."""
        return _stamp(self.index_file)

    @cached_property
    def index_file(self) -> Path:
        """The index in use: git gives hooks of ``git commit PATH`` a temporary one."""
        named = os.environ.get("GIT_INDEX_FILE")
        return self.top / named if named else self.git_dir / "index"

    def tree(self, rev: str) -> list[Entry]:
        """Return the regular files of a commit, without sizes; none where there is no ``rev``."""
        found = rev if entries.is_object_id(rev) else self.resolve(rev)
        return entries.of_tree(self.git, found) if found else []

    def index(self) -> list[Entry]:
        """Return the regular files of the index, in all stages, without sizes."""
        return entries.of_index(self.git)

    def manifests(
        self, found: Iterable[Entry], others: Callable[[Entry], object] = lambda _: None
    ) -> Iterator[tuple[Entry, bytes]]:
        """Yield those entries that are manifests, with their text; tell ``others`` of the rest.

        Sizes are checked first, and what does not begin like a manifest is not kept: a tree of
        any size takes constant memory.
        """
        for entry in entries.sized(self.git, found):
            is_short = len(MANIFEST_PREFIX) < (entry.size or 0) <= MANIFEST_LIMIT
            read = (entry.blob, MANIFEST_LIMIT, MANIFEST_PREFIX)
            text = self._batch.read(*read) if is_short else None
            if text is None:
                others(entry)
            else:
                yield entry, text

    def range_entries(self, include: Sequence[str], exclude: Sequence[str]) -> Iterator[Entry]:
        """Return the files that commits of ``include`` changed which are not in ``exclude``.

        Both take the ids of commits, names of refs, and options such as ``--remotes=origin``.
        Each entry says which commit has it; a blob stands as often as commits bring it to a path.
        """
        options = [
            *(name for name in include if name.startswith("-")),
            "--not",
            *(name for name in exclude if name.startswith("-")),
        ]
        revisions = [name for name in include if not name.startswith("-")]
        revisions += [f"^{name}" for name in exclude if not name.startswith("-")]
        return entries.of_commits(options, revisions, self.top, self._env)

    def local_entries(self, found: Iterable[Entry]) -> Iterator[Entry]:
        """Return the entries whose blobs are here, all of them but in a partial clone."""
        partial = any(key.endswith(".promisor") for key in self.config_of("remote"))
        here = entries.local_blobs(self.git) if partial else None
        return (entry for entry in found if here is None or entry.blob in here)

    def has(self, name: str) -> bool:
        """Return whether the object with id ``name`` is here."""
        return self._batch.name(name) is not None

    def peel(self, ids: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return type and id of what each object is, or is a tag of; without those not here."""
        return entries.peel(self.git, ids)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
