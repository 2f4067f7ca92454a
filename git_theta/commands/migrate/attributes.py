"""Attributes files of old commits, edited so that they say how files are stored now."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from git_theta.git.attributes import Line, covers, escape

_KEYS = ("filter", "diff", "merge")


@dataclass(frozen=True, slots=True)
class Storage:
    """A way in which Git keeps files: the name of its filter; none of files that are plain."""

    name: str

    @property
    def words(self) -> tuple[str, ...]:
        """Return the attributes of its files, in the order in which they are written."""
        return (*(f"{key}={self.name}" for key in _KEYS), "-text") if self.name else ()

    def line(self, glob: str) -> str:
        """Return the line by which it stores the files that match ``glob``."""
        words = self.words or ("!filter", "!diff", "!merge", "!text")
        return " ".join((escape(glob), *words))

    def has(self, filter_: str) -> bool:
        """Return whether files with the filter ``filter_`` are stored so."""
        return filter_ == self.name if self.name else filter_ in ("unset", "unspecified", "set", "")


THETA, LFS, PLAIN = Storage("theta"), Storage("lfs"), Storage("")


def converted(
    text: str, folder: str, globs: Sequence[str], source: Storage, target: Storage
) -> str:
    """Return an attributes file of ``folder`` whose lines for ``source`` are for ``target``.

    Only lines whose files all match one of ``globs``. Everything else stays as it is.
    """
    lines = _split(text)
    edited = [
        _edited(line, source, target)
        if _is_meant(Line(number, line), folder, globs, source)
        else line
        for number, line in enumerate(lines, start=1)
    ]
    kept = "".join(edited)
    # Where the last line had no line break and is gone, the one before it has none, either.
    was_cut = lines and not edited[-1] and not lines[-1].endswith("\n")
    return kept.removesuffix("\n").removesuffix("\r") if was_cut else kept


def appended(text: str, lines: Iterable[str]) -> str:
    """Return an attributes file with further lines, with a line break at its end if it had one."""
    added = list(lines)
    ending = "\r\n" if text.count("\r\n") * 2 > text.count("\n") else "\n"
    if not added:
        return text
    if not text or text.endswith("\n"):
        return text + "".join(f"{line}{ending}" for line in added)
    return text + "".join(f"{ending}{line}" for line in added)


def _split(text: str) -> list[str]:
    # splitlines() would take characters for line breaks that git does not.
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _is_meant(line: Line, folder: str, globs: Sequence[str], source: Storage) -> bool:
    if not line.pattern or f"filter={source.name}" not in line.attributes:
        return False
    pattern = line.pattern.strip('"')  # Git takes patterns with blanks quoted as in C
    path = f"{folder}/{pattern.lstrip('/')}" if folder else pattern
    return any(covers(escape(glob), path) for glob in globs)


def _edited(line: str, source: Storage, target: Storage) -> str:
    found = Line(1, line)
    at = line.index(found.pattern) + len(found.pattern)
    pattern, rest = line[:at], line[at:]
    if target.words:
        for key in _KEYS:
            rest = re.sub(rf"(?<!\S){key}={source.name}(?!\S)", f"{key}={target.name}", rest)
        lacking = [word for word in target.words if word not in Line(1, pattern + rest).attributes]
        body = rest.rstrip("\r\n")
        return pattern + " ".join([body, *lacking]) + rest[len(body) :]
    others = [word for word in found.attributes if word not in source.words]
    body = rest.rstrip("\r\n")
    return " ".join([pattern, *others]) + rest[len(body) :] if others else ""
