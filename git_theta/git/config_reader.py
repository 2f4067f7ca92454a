"""The settings of Git's configuration: each question is a program, or one program answers all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from git_theta.git import command
from git_theta.git.command import decode

Pairs = list[tuple[str, str]]


class ConfigReader:
    """Reads what git has configured for a folder."""

    def __init__(self, cwd: Path, env: Mapping[str, str]) -> None:
        self._cwd = cwd
        self._env = env
        self.known: Pairs | None = None

    def read_once(self) -> None:
        """Read everything now, and answer from it, ``known``, from now on."""
        self.known = self._read("--list")

    def sections(self, names: Iterable[str]) -> dict[str, str]:
        """Return the settings ``<section>.*``, the last of each; keys are in lower case."""
        pattern = rf"^({'|'.join(names)})\."
        pairs = self._read("--get-regexp", pattern) if self.known is None else self.known
        return {key.lower(): value for key, value in pairs if re.match(pattern, key)}

    def value(self, key: str) -> str | None:
        """Return one setting; ``None`` where there is none."""
        if self.known is not None:
            return dict(self.known).get(_canonical(key))
        found = self._ask("--get", key)
        return found.removesuffix("\0") if found else None

    def _read(self, *args: str) -> Pairs:
        records = (record.partition("\n") for record in self._ask(*args).split("\0") if record)
        return [(key, value) for key, _, value in records]

    def _ask(self, *args: str) -> str:
        asked = ["git", "config", "--null", *args]
        result = command.attempt(asked, cwd=self._cwd, env=self._env)
        if result.status > 1:  # 1 is that there is no such setting
            raise command.failure(asked, result)
        return decode(result.out)


def _canonical(key: str) -> str:
    """Return a setting's name as git lists it: only the subsection has its own case."""
    section, dot, rest = key.partition(".")
    subsection, second, name = rest.rpartition(".")
    return f"{section.lower()}{dot}{subsection}{second}{name.lower()}"
