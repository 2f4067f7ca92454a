"""How users write a strategy and its hyperparameters: ``NAME:KEY=VALUE,...``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from git_theta.errors import MergeError

# A comma, unless it is inside brackets: weight=[1,2] and weight[a,b]=1 are one item each.
_COMMA = re.compile(r",(?![^\[\]]*\])")
_ITEM = re.compile(r"(?P<key>\w+)(\[(?P<name>.+)\]|\.(?P<dotted>[^=]+))?=(?P<value>.*)", re.DOTALL)


def parse_method(text: str) -> tuple[str, dict[str, Any]]:
    """Parse ``NAME`` or ``NAME:KEY=VALUE,...``; raise ``MergeError`` for other text."""
    name, _, items = text.partition(":")
    return name, parse_values(_COMMA.split(items) if items else [])


def parse_values(items: Sequence[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` items; raise ``MergeError`` for any other text.

    ``KEY[CONTRIBUTOR]=VALUE`` is the value for one contributor, and ``KEY.CONTRIBUTOR=VALUE``,
    which is easier to type in a shell.
    """
    values: dict[str, Any] = {}
    for item in items:
        found = _ITEM.fullmatch(item)
        if not found:
            raise MergeError(f"{item!r} is not KEY=VALUE", hint="e.g. density=0.2")
        key, name, value = found["key"], found["name"] or found["dotted"], found["value"]
        if name is None:
            values[key] = value
        elif isinstance(values.setdefault(key, {}), dict):
            values[key][name] = value
        else:
            raise MergeError(f"{item!r} gives a second value for {key}")
    return values
