"""Globs on names of tensors, with a range of layers: ``model.layers.0-7.*``."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from git_theta.errors import MergeError

_RANGE = re.compile(r"(?:^|(?<=\.))(?P<first>[0-9]{1,6})-(?P<last>[0-9]{1,6})(?=\.|$)")
_NUMBER = re.compile(r"[0-9]{1,6}")


def matches(name: str, glob: str) -> bool:
    """Return whether a name matches a glob of ``fnmatch``, case-sensitive.

    ``A-B`` between dots stands for the numbers from A to B, both included. Raise ``MergeError``
    for a range without numbers, and for two ranges.
    """
    found = _RANGE.search(glob)
    if found is None:
        return fnmatchcase(name, glob)
    first, last = int(found["first"]), int(found["last"])
    before, after = glob[: found.start()], glob[found.end() :]
    if first > last or _RANGE.search(after):
        raise MergeError(
            f"rule {glob!r} has no valid range of layers",
            hint="write one range, the lower number first, e.g. '*.layers.0-7.*'",
        )
    numbers = {part for part in name.split(".") if _NUMBER.fullmatch(part)}
    return any(
        fnmatchcase(name, f"{before}{number}{after}")
        for number in numbers
        if first <= int(number) <= last
    )
