"""Remotes by what is configured: read with all settings, or asked of git, which takes 3 ms each."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from git_theta.git.command import decode, encode
from git_theta.git.config_reader import ConfigReader, Pairs

# Where git kept remotes before it had settings (gitrepository-layout(5)), and keeps reading them.
_OLD_FOLDERS = ("remotes", "branches")


class Git(Protocol):
    """Runs git in the repository."""

    def __call__(self, *args: str, check: bool = True) -> bytes:
        """Return the output of a git command."""
        ...


class ConfiguredRemotes:
    """The remotes of a repository: git is asked where the settings were not read at once.

    It is asked too where more than ``remote.*`` counts: files of old, and URLs that are rewritten.
    """

    def __init__(self, git: Git, config: ConfigReader, common_dir: Path) -> None:
        self._git = git
        self._config = config
        self._common_dir = common_dir

    def names(self) -> list[str]:
        """Return the names of all remotes, sorted as `git remote` does."""
        pairs = self._settings()
        if pairs is None:
            return decode(self._git("remote")).splitlines()
        keys = (key.removeprefix("remote.") for key, _ in pairs if key.startswith("remote."))
        names = {key.rpartition(".")[0] for key in keys}
        # Git knows none that begins with a slash, and `remote.pushDefault` names none.
        return sorted((name for name in names if name and name[0] != "/"), key=encode)

    def by_preference(self) -> list[str]:
        """Return the names of all remotes: upstream's first, then ``origin``, then others."""
        names = self.names()
        if len(names) < 2:
            return names
        first = [self.default(), "origin"]
        return sorted(names, key=lambda name: first.index(name) if name in first else len(first))

    def default(self) -> str | None:
        """Return the remote of the current branch's upstream, or ``remote.pushDefault``."""
        branch = decode(self._git("symbolic-ref", "-q", "--short", "HEAD", check=False)).strip()
        upstream = self._config.value(f"branch.{branch}.remote") if branch else None
        return upstream or self._config.value("remote.pushDefault")

    def urls(self, name: str, push: bool = False) -> list[str]:
        """Return where fetches from a remote go first, or all pushes; nothing without one."""
        pairs = self._settings()
        if pairs is None or any(key.startswith("url.") for key, _ in pairs):
            return self._ask(name, push)
        if name not in self.names():
            return []
        fetch = [value for key, value in pairs if key == f"remote.{name}.url"]
        pushes = [value for key, value in pairs if key == f"remote.{name}.pushurl"]
        chosen = (pushes or fetch) if push else fetch[:1]
        # Of newer git, an empty one takes back those before it.
        return self._ask(name, push) if not chosen or "" in {*fetch, *pushes} else chosen

    def _ask(self, name: str, push: bool) -> list[str]:
        options = ("--push", "--all") if push else ()
        asked = ("remote", "get-url", *options, "--", name)
        return decode(self._git(*asked, check=not push)).splitlines()

    def _settings(self) -> Pairs | None:
        folders = (self._common_dir / name for name in _OLD_FOLDERS)
        try:
            has_old = any(any(folder.iterdir()) for folder in folders if folder.is_dir())
        except OSError:
            return None
        return None if has_old else self._config.known
