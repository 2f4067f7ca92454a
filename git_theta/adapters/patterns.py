"""PEFT's patterns for module names, matched by RE2: in linear time, whoever wrote them.

A configuration comes with any branch that is fetched, and Python's backtracking matcher would be
busy with ``(a+)+`` for ever.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from git_theta.errors import MissingToolError

V = TypeVar("V")

_LONGEST_PATTERN = 1024
# Instructions of a pattern times characters of a name, for all names: under 6 ns each, a minute.
_MOST_STEPS = 1e10
# A count without its lower bound: Python reads {,3} as {0,3}, RE2 as those four characters.
_NO_LOWER_BOUND = re.compile(r"\{,\d+\}")


class Patterns(Generic[V]):
    """Values for names, by regular expressions for the end of a name, from a dot on.

    The first that matches counts. Raises ``ValueError`` for patterns that RE2 lacks (references,
    lookaround) or reads in another way than Python, and for more work than a minute.
    """

    def __init__(self, values: Mapping[str, V]) -> None:
        self._values = values
        self._matchers = {key: Matcher(rf"(.*\.)?({key})$") for key in values}
        self._known: dict[str, str] = {}

    def get(self, name: str, default: V) -> V:
        """Return the value for ``name``."""
        if name not in self._known:
            found = (key for key, matcher in self._matchers.items() if matcher.matches(name))
            self._known[name] = next(found, name)
        return self._values.get(self._known[name], default)


class Matcher:
    """One regular expression, for the whole of a name."""

    def __init__(self, pattern: str) -> None:
        self._pattern = _compile(pattern)
        self._steps = 0.0

    def matches(self, name: str) -> bool:
        """Return whether all of ``name`` matches."""
        self._steps += self._pattern.programsize * len(name)
        if self._steps > _MOST_STEPS:
            raise ValueError("the names are too many, or too long, to be matched by patterns")
        return self._pattern.fullmatch(name) is not None


def _compile(pattern: str) -> Any:
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"the pattern {pattern[:80]!r}... is too long")
    if _NO_LOWER_BOUND.search(pattern):
        raise ValueError(f"{{,n}} in the pattern {pattern!r} is not supported: write {{0,n}}")
    _check_by_python(pattern)
    re2 = _library()
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace")
        raise ValueError(f"the pattern {pattern!r} is not supported: {reason}") from None


def _check_by_python(pattern: str) -> None:
    """Refuse what PEFT would refuse, and sets such as [[:alpha:]], which the two read apart."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError, Warning) as error:
            raise ValueError(f"the pattern {pattern!r} is malformed: {error}") from None


def _library() -> Any:
    try:
        import re2
    except ImportError as error:
        raise MissingToolError(
            "adapters with patterns need google-re2", hint="pip install google-re2"
        ) from error
    return re2
