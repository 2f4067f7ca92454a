"""Parameters of one kind in many layers, as one pattern: what people read and write rules for."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NUMBER = re.compile(r"(?<![^._])\d+(?![^._])")
_SPECIAL = re.compile(r"[\[*?]")


def pattern_of(name: str) -> str:
    """A glob for the parameters called like this one in all layers: ``layer.*.weight``."""
    literal = _SPECIAL.sub(lambda found: f"[{found[0]}]", name)
    return _NUMBER.sub("*", literal)


def by_pattern(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by their patterns, in the order in which each comes first."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(pattern_of(name), []).append(name)
    return groups
