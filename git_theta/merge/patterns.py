"""Parameters of one kind in many layers, as one pattern: what people read and write rules for."""

from __future__ import annotations

import re
from collections.abc import Iterable

from git_theta.merge.steps import Conflict

_NUMBER = re.compile(r"(?<![^._])\d+(?![^._])")
_SPECIAL = re.compile(r"[\[*?]")


def pattern_of(name: str) -> str:
    """A glob for the parameters called like this one in all layers: ``layer.*.weight``."""
    literal = _SPECIAL.sub(lambda found: f"[{found[0]}]", name)
    return _NUMBER.sub("*", literal)


def by_kind(conflicts: Iterable[Conflict]) -> list[tuple[str, list[Conflict]]]:
    """Conflicts of one pattern and reason together, in the order in which each comes first."""
    groups: dict[tuple[str, str], list[Conflict]] = {}
    for conflict in conflicts:
        groups.setdefault((pattern_of(conflict.name), conflict.reason), []).append(conflict)
    return [(pattern, group) for (pattern, _), group in groups.items()]
