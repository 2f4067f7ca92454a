"""Pieces of messages: numbers with nouns, object ids, lists, paths as they are typed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_SHOWN = 3


def plural(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 tensor``, ``2 tensors``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def short_id(id_: str) -> str:
    """Return as much of an object's or commit's id as tells it from others."""
    return id_[:12]


def some_ids(ids: Sequence[str]) -> str:
    """Return the first of ``ids``, shortened: ``0123456789ab, ba9876543210, ...``."""
    return ", ".join(map(short_id, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")


def as_typed(path: str) -> str:
    """Return a path as one word for the shell, never an option or the magic of a pathspec."""
    return shlex.quote(f"./{path}" if path.startswith(("-", ":")) else path)
