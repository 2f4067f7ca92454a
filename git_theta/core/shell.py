"""Paths as they are typed in the commands that messages propose."""

from __future__ import annotations

import shlex


def as_typed(path: str) -> str:
    """Return a path as one word for the shell, never an option or the magic of a pathspec."""
    return shlex.quote(f"./{path}" if path.startswith(("-", ":")) else path)
