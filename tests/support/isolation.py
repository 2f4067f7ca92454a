"""Keeps a test's git away from the person who runs it: no HOME, no configuration, fixed dates."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_IDENTITY = {
    "GIT_AUTHOR_NAME": "A U Thor",
    "GIT_AUTHOR_EMAIL": "author@example.com",
    "GIT_AUTHOR_DATE": "1112911993 +0000",
    "GIT_COMMITTER_NAME": "C O Mitter",
    "GIT_COMMITTER_EMAIL": "committer@example.com",
    "GIT_COMMITTER_DATE": "1112911993 +0000",
}

# Submodules over file:// are refused by default since git 2.38.1.
_CONFIG = """\
[init]
\tdefaultBranch = main
[protocol "file"]
\tallow = always
[advice]
\tdetachedHead = false
[lfs "transfer"]
	maxretries = 1
[core]
\tfsync = none
[gc]
\tauto = 0
[maintenance]
\tauto = false
"""

# What git, git-lfs and we could write by mistake below a real HOME.
_WATCHED = (
    ".gitconfig",
    ".gitattributes",
    ".lfsconfig",
    ".gitignore",
    ".config/git",
    ".config/git-theta",
    ".cache/git-theta",
    ".local/share/git-theta",
    ".git-theta",
)


def environment(home: Path) -> dict[str, str | None]:
    """The variables of an isolated test (``None``: unset); makes ``home``, with configuration."""
    home.mkdir(parents=True)
    config = home / ".gitconfig"
    config.write_text(_CONFIG)
    inherited = (name for name in os.environ if name.startswith(("GIT_", "XDG_")))
    return {
        **dict.fromkeys(inherited),
        "HOME": str(home),
        "USERPROFILE": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "XDG_DATA_HOME": str(home / ".local/share"),
        "GIT_CONFIG_GLOBAL": str(config),
        "GIT_CONFIG_SYSTEM": str(home / "system.gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_EDITOR": "true",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        **_IDENTITY,
    }


def snapshot(home: Path) -> dict[str, tuple[int, int]]:
    """Size and modification time (ns) of everything watched below a HOME."""
    return {str(path): _stamp(path) for name in _WATCHED for path in _walk(home / name)}


def _walk(path: Path) -> Iterator[Path]:
    if path.exists():
        yield path
        yield from path.rglob("*")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_size, status.st_mtime_ns
