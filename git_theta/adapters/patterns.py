"""Regular expressions from strangers: those that Python's backtracking matcher is done with soon.

PEFT's patterns for names of modules are regular expressions, and a configuration comes with any
branch that is fetched: ``(a+)+`` would keep a merge busy for ever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise

LONGEST_NAME = 128
"""Characters of the longest name that patterns are matched with."""

# 0.5 s or so for a name.
_MOST_WAYS = 1e8
_LONGEST_PATTERN = 1024

_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[*+?}]\?|\(\?:|\(\?|.", re.DOTALL)
_REPEATS = ("*", "+", "{")
_ESCAPES = set("\\.-_/$^()[]{}*+?|&~# dDwWsS")


def check_pattern(pattern: str) -> None:
    """Raise ``ValueError`` for a pattern that could take long to match, by an upper bound.

    Each repetition of a character can end anywhere in a name: k of them in C(n + k, k) ways.
    Every group that has alternatives, and every option, multiplies these ways. Repeated groups,
    references and lookaround are refused.
    """
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"the pattern {_shown(pattern)}... is too long")
    parts = _PART.findall(pattern)
    if strange := next(filter(_is_strange, parts), None):
        raise ValueError(f"{strange} in the pattern {_shown(pattern)} is not supported")
    if any(one == ")" and other[0] in _REPEATS for one, other in pairwise(parts)):
        raise ValueError(f"the pattern {_shown(pattern)} repeats a group")
    # One more is the part of the name that no pattern is for.
    repeats = 1 + sum(part[0] in _REPEATS for part in parts)
    if _choices(parts) * math.comb(LONGEST_NAME + repeats, repeats) > _MOST_WAYS:
        raise ValueError(f"the pattern {_shown(pattern)} can match in too many ways")


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
