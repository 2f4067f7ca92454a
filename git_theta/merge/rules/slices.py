"""Slices: runs of layers of branches, of which a new model is built."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from git_theta.errors import UsageError

_SLICE = re.compile(r"(?P<source>.+):(?P<first>[0-9]{1,6})-(?P<last>[0-9]{1,6})")
# A hostile recipe could ask for the same layer again and again.
MOST_LAYERS = 10_000


class Slice(NamedTuple):
    """The layers ``first`` to ``last``, both included, of a contributor (or ``base``)."""

    source: str
    first: int
    last: int

    def __str__(self) -> str:
        """Return the slice as ``parse_slice`` takes it."""
        return f"{self.source}:{self.first}-{self.last}"


def parse_slice(text: str) -> Slice:
    """Parse ``SOURCE:FIRST-LAST``; raise ``UsageError`` for any other text."""
    found = _SLICE.fullmatch(text)
    if found is None or int(found["first"]) > int(found["last"]):
        raise UsageError(f"{text!r} is no slice", hint="write BRANCH:FIRST-LAST, e.g. main:0-7")
    return Slice(found["source"], int(found["first"]), int(found["last"]))


def as_behind(slices: Sequence[Slice], current: str) -> tuple[Slice, ...]:
    """Return the slices for a ``current`` branch that is the common ancestor, no contributor."""
    names = ("ours", current)
    return tuple(s._replace(source="base") if s.source in names else s for s in slices)
