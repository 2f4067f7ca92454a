"""Names of a model's parameters in a checkpoint of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from git_theta.errors import UsageError

_DOT = re.compile(r"\.")
# Modules around a model in another one: "base_model.model.bert." has three.
_DEEPEST = 3


def in_checkpoint(names: Sequence[str], known: Iterable[str]) -> dict[str, str]:
    """Return a model's names of parameters to the checkpoint's, for those that it has.

    They are alike, or one prefix is taken from the names of the model, such as the ``bert.`` of a
    classifier, or else put before them: the one that makes the most of them known. Name by name
    would give a head's ``classifier.weight`` to a ``weight``. Raises ``UsageError`` where several
    prefixes would do.
    """
    there = set(known)
    alike = {name: name for name in names if name in there}
    ways = [
        [_known(renamed, there) for renamed in way]
        for way in (_shortened(names), _lengthened(names, there))
    ]
    most = max((len(found) for way in ways for found in way), default=0)
    if most <= len(alike):
        return alike
    # Shortened ones first: more of their parts agree with the checkpoint's.
    best, *others = next(filter(None, ([f for f in way if len(f) == most] for way in ways)))
    if others:
        raise _ambiguous(best, others[0])
    taken = set(best.values())
    return {name: name for name in alike if name not in best and name not in taken} | best


def _shortened(names: Sequence[str]) -> Iterator[dict[str, str]]:
    for prefix in _prefixes(names):
        yield {name: name[len(prefix) :] for name in names if name.startswith(prefix)}


def _lengthened(names: Sequence[str], there: set[str]) -> Iterator[dict[str, str]]:
    for prefix in _prefixes(there):
        yield {name: prefix + name for name in names}


def _ambiguous(one: Mapping[str, str], other: Mapping[str, str]) -> UsageError:
    (name, found), (twin, also) = next(iter(one.items())), next(iter(other.items()))
    return UsageError(
        f"the names are ambiguous: either {name} is the checkpoint's {found}, or {twin} its {also}",
        hint="rename the statistics: Statistics(kind, {name in the checkpoint: tensor}, examples)",
    )


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return what names begin with, up to their first three dots; short ones first."""
    dots = (dot for name in names for dot in islice(_DOT.finditer(name), _DEEPEST))
    found = {dot.string[: dot.end()] for dot in dots}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _known(renamed: Mapping[str, str], there: set[str]) -> dict[str, str]:
    return {old: new for old, new in renamed.items() if new in there}
