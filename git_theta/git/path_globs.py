"""Which of several globs match a path, by the rules of `.gitattributes`, as Git itself says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from git_theta.core.files import atomic_file
from git_theta.git import command
from git_theta.git.attributes import escape
from git_theta.git.check_attr import CheckAttr, is_odd
from git_theta.git.command import decode, encode

# No other attributes file sets it.
_ATTRIBUTE = "git-theta-glob"


class PathGlobs:
    """Globs of paths to take, and of paths to leave out; a context manager.

    An empty repository of its own is asked, so that nothing that another one has counts.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self.include = tuple(include)
        self.exclude = tuple(exclude)
        self._stack = ExitStack()

    def __enter__(self) -> PathGlobs:
        folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="git-theta-")))
        names = decode(command.run(["git", "rev-parse", "--local-env-vars"])).split()
        env: dict[str, str | None] = {**dict.fromkeys(names), "GIT_ATTR_NOSYSTEM": "1"}
        command.run(["git", "init", "-q", "--bare", "--template=", "."], cwd=folder, env=env)
        with atomic_file(folder / "info" / "attributes", sync_content=False) as file:
            file.write(encode("".join(self._lines())))
        self._asked = CheckAttr(folder, {**env, "GIT_DIR": str(folder)}, _ATTRIBUTE)
        self._stack.callback(self._asked.close)
        return self

    def _lines(self) -> list[str]:
        taken = [f"{escape(g)} {_ATTRIBUTE}=+{n}\n" for n, g in enumerate(self.include)]
        left = [f"{escape(g)} {_ATTRIBUTE}=-{n}\n" for n, g in enumerate(self.exclude)]
        return taken + left

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def included(self, path: str) -> str | None:
        """Return the glob that takes ``path``; ``None`` where none does, or another excludes it."""
        return self._find(path, "+", self.include)

    def excluded(self, path: str) -> str | None:
        """Return the glob that leaves ``path`` out."""
        return self._find(path, "-", self.exclude)

    def _find(self, path: str, sign: str, globs: Sequence[str]) -> str | None:
        value = "" if is_odd(path) else self._asked.value(path)
        return globs[int(value[1:])] if value.startswith(sign) else None
