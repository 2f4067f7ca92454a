"""Slices: runs of layers of branches, of which a new model is built."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from git_theta.errors import UsageError

_SLICE = re.compile(r"(?P<source>.+):(?P<first>[0-9]{1,6})-(?P<last>[0-9]{1,6})")
# A hostile recipe could ask for the same layer again and again.
MOST_LAYERS = 10_000


class Slice(NamedTuple):
    """The layers ``first`` to ``last``, both included, of a contributor (or ``base``).

    ``others`` are as many layers of others, which are merged with them one by one.
    """

    source: str
    first: int
    last: int
    others: tuple[Slice, ...] = ()

    @property
    def layers(self) -> range:
        """Their numbers in the source."""
        return range(self.first, self.last + 1)

    @property
    def sources(self) -> tuple[Slice, ...]:
        """What is merged: this one and the others."""
        return (self, *self.others)

    def __str__(self) -> str:
        """Return the slice as ``parse_slice`` takes it."""
        return f"{self.source}:{self.first}-{self.last}"


def parse_slice(text: str) -> Slice:
    """Parse ``SOURCE:FIRST-LAST``; raise ``UsageError`` for any other text."""
    found = _SLICE.fullmatch(text)
    if found is None or int(found["first"]) > int(found["last"]):
        raise UsageError(f"{text!r} is not a slice", hint="write BRANCH:FIRST-LAST, e.g. main:0-7")
    return Slice(found["source"], int(found["first"]), int(found["last"]))


def merges(slices: Sequence[Slice]) -> bool:
    """Return whether several sources of a slice are merged."""
    return any(each.others for each in slices)


def as_row(found: Slice) -> list[object]:
    """Return a slice for JSON: ``[source, first, last]``, and a list of others if there are any."""
    others = [as_row(each) for each in found.others]
    return [*found[:3], *([others] if others else [])]


def of_row(row: Sequence[Any]) -> Slice:
    """Return the slice of such a row; raise ``TypeError`` or ``ValueError`` for any other."""
    source, first, last, *rest = row
    (others,) = rest or ([],)
    found = Slice(source, first, last, tuple(Slice(*each) for each in others))
    for each in found.sources:
        numbers = (each.first, each.last)
        if type(each.source) is not str or [type(number) for number in numbers] != [int, int]:
            raise TypeError
        if not 0 <= each.first <= each.last < MOST_LAYERS or len(each.layers) != len(found.layers):
            raise ValueError
    return found


def as_behind(slices: Sequence[Slice], current: str) -> tuple[Slice, ...]:
    """Return the slices for a ``current`` branch that is the common ancestor, no contributor."""
    names = ("ours", current)
    return tuple(s._replace(source="base") if s.source in names else s for s in slices)
