"""Regular expressions from strangers: those that Python's backtracking matcher is done with soon.

PEFT's patterns for names of modules are regular expressions, and a configuration comes with any
branch that is fetched: ``(a+)+`` would keep a merge busy for ever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Generic, TypeVar

LONGEST_NAME = 128
"""Characters of the longest name that patterns are matched with."""

V = TypeVar("V")

# Each takes about 5 ns: half a second for a name, and a minute for all names.
_MOST_WAYS = 1e8
_MOST_WAYS_IN_ALL = 1e10
_LONGEST_PATTERN = 1024

_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[*+?}]\?|\(\?:|\(\?|.", re.DOTALL)
_REPEATS = ("*", "+", "{")
_ESCAPES = set("\\.-_/$^()[]{}*+?|&~# dDwWsS")


class Patterns(Generic[V]):
    """Values for names, by regular expressions for the end of a name, from a dot on.

    The first that matches counts. Raises ``ValueError`` for patterns that could take long, by an
    upper bound.
    """

    def __init__(self, values: Mapping[str, V]) -> None:
        self._values = values
        self._cost = sum(map(ways_to_match, values))
        if self._cost > _MOST_WAYS:
            raise ValueError("the patterns can match in too many ways")
        self._patterns = [(re.compile(whole(key)), key) for key in values]
        self._known: dict[str, str] = {}
        self._spent = 0.0

    def get(self, name: str, default: V) -> V:
        """The value for ``name``; ``ValueError`` where finding it could take long."""
        if not self._patterns:
            return default
        if name not in self._known:
            self._known[name] = self._key(name)
        return self._values.get(self._known[name], default)

    def _key(self, name: str) -> str:
        self._spent += self._cost
        if len(name) > LONGEST_NAME or self._spent > _MOST_WAYS_IN_ALL:
            why = "is too long" if len(name) > LONGEST_NAME else "is one of too many"
            raise ValueError(f"the name {name[:LONGEST_NAME]} {why} to be matched by patterns")
        found = (key for pattern, key in self._patterns if pattern.match(name))
        return next(found, name)


def whole(pattern: str) -> str:
    """The regular expression for names that end in what matches ``pattern``."""
    return rf"(.*\.)?({pattern})$"


def ways_to_match(pattern: str) -> float:
    """In how many ways a name can be tried to match at most.

    Each repetition of a character can end anywhere in a name: k of them in C(n + k, k) ways.
    Every group that has alternatives, and every option, multiplies these ways. Raises
    ``ValueError`` for repeated groups, references and lookaround, and for too many ways.
    """
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"the pattern {_shown(pattern)}... is too long")
    parts = _PART.findall(pattern)
    if strange := next(filter(_is_strange, parts), None):
        raise ValueError(f"{strange} in the pattern {_shown(pattern)} is not supported")
    if any(one == ")" and other[0] in _REPEATS for one, other in pairwise(parts)):
        raise ValueError(f"the pattern {_shown(pattern)} repeats a group")
    repeats = sum(part[0] in _REPEATS for part in parts)
    # What comes before the pattern's part of a name can end anywhere too; a pattern without
    # repetitions has few places to begin at.
    places = math.comb(LONGEST_NAME + repeats + 1, repeats + 1) if repeats else 1
    ways = float(_choices(parts) * places)
    if ways > _MOST_WAYS:
        raise ValueError(f"the pattern {_shown(pattern)} can match in too many ways")
    return ways


def _is_strange(part: str) -> bool:
    return part == "(?" or (part[0] == "\\" and part[1:] not in _ESCAPES)


def _choices(parts: Sequence[str]) -> int:
    """The product of the numbers of alternatives of all groups, an option being one of two."""
    choices, open_groups = 1, [1]
    for part in parts:
        if part in ("(", "(?:"):
            open_groups.append(1)
        elif part == "|":
            open_groups[-1] += 1
        elif part == ")" and len(open_groups) > 1:
            choices *= open_groups.pop()
        elif part[0] == "?":
            choices *= 2
    return choices * math.prod(open_groups)


def _shown(pattern: str) -> str:
    return repr(pattern[:LONGEST_NAME])
