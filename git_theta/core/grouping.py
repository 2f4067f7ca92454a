"""Tensors of one kind in all layers, shown together: ``model.layers.*.mlp.up_proj.weight``."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from git_theta.core.layout import natural_order

_NUMBER = re.compile(r"(?<![^._])\d+(?![^._])")
# Of a layer: a stranger's number may be too long for int().
_DIGITS = 9
_SPECIAL = re.compile(r"[\[*?]")

T = TypeVar("T")


def pattern_of(name: str) -> str:
    """Return a glob for the tensors called like this one in all layers: ``layer.*.weight``."""
    literal = _SPECIAL.sub(lambda found: f"[{found[0]}]", name)
    return _NUMBER.sub("*", literal)


def layer_of(name: str) -> int | None:
    """Return the first number of a tensor's name, which is that of its layer; ``None`` without."""
    found = _NUMBER.search(name)
    return int(found[0]) if found and len(found[0]) <= _DIGITS else None


def by_pattern(
    items: Iterable[T], name: Callable[[T], str], kind: Callable[[T], Hashable]
) -> list[tuple[str, list[T]]]:
    """Return items whose names have one pattern, and that are of one kind, together.

    Both the groups and what is in them are in the natural order of their (first) names.
    """
    groups: dict[tuple[str, Hashable], list[T]] = {}
    for item in sorted(items, key=lambda each: natural_order(name(each))):
        groups.setdefault((pattern_of(name(item)), kind(item)), []).append(item)
    return [(pattern, group) for (pattern, _), group in groups.items()]
