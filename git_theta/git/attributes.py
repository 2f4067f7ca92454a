"""Which paths are checkpoints: lines of ``.gitattributes`` (gitattributes(5))."""

from __future__ import annotations

import fnmatch
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from git_theta.core.files import atomic_file, read_regular
from git_theta.errors import UsageError
from git_theta.git import command
from git_theta.git.command import decode, encode
from git_theta.git.repository import Repository

FILE = ".gitattributes"

_OURS = ("filter=theta", "diff=theta", "merge=theta", "-text")
_NAMES = ("filter", "diff", "merge", "text")

# git's blanks, not Unicode's; a pattern may be quoted as in C.
_WORD = re.compile(r'(?:^"(?:[^"\\]|\\.)*"|[^ \t\r\n]+)')

# ``binary`` is a macro that git defines: -diff -merge -text.
_MACROS = {"binary": ("-diff", "-merge", "-text")}


class Line(NamedTuple):
    """A line of an attributes file, 1 being the first: a pattern and what it sets."""

    number: int
    text: str

    @property
    def pattern(self) -> str:
        """The pattern as it stands, or nothing in a comment or an empty line."""
        return next(iter(self._words()), "")

    @property
    def attributes(self) -> list[str]:
        """Return what is set for it."""
        return self._words()[1:]

    def _words(self) -> list[str]:
        words = _WORD.findall(self.text)
        return [] if words and words[0].startswith(("#", "[attr]")) else words

    @property
    def is_ours(self) -> bool:
        """Return whether it makes paths checkpoints."""
        return _OURS[0] in self.attributes

    def overrides(self, earlier: Line) -> bool:
        """Return whether it overrides a line of ours before it: filter, merge or text."""
        words = [word for name in self.attributes for word in (name, *_MACROS.get(name, ()))]
        differs = any(_name(word) in _NAMES and word not in _OURS for word in words)
        return differs and covers(self.pattern, earlier.pattern)


def _name(attribute: str) -> str:
    return attribute.lstrip("-!").partition("=")[0]


def covers(pattern: str, other: str) -> bool:
    """Return whether ``pattern`` matches whatever ``other`` does, as far as can be told."""
    # A pattern without a slash is matched against the last part of the path.
    compared = other if "/" in pattern.strip("/") else other.rpartition("/")[2]
    return pattern == other or fnmatch.fnmatchcase(compared, pattern.lstrip("/"))


def track(folder: Path, patterns: Sequence[str]) -> list[str]:
    """Make what ``patterns`` match in ``folder`` checkpoints; return those that were not yet.

    A line of ours that a later one overrides moves behind it. Brackets are taken as they are
    where files match only so. Raises ``UsageError`` for a pattern that git cannot take.
    """
    file = _File.read(folder / FILE)
    written = {pattern: escape(_as_meant(folder, pattern)) for pattern in patterns}
    added = [pattern for pattern, text in written.items() if file.track(text)]
    if added:
        file.write()
    return added


def untrack(folder: Path, patterns: Sequence[str]) -> list[str]:
    """Return the opposite; return the patterns that were tracked here."""
    file = _File.read(folder / FILE)
    removed = [
        pattern
        for pattern in patterns
        # What ``track`` may have written for it; every line goes.
        if sum(file.untrack(escape(text)) for text in {pattern, without_classes(pattern)})
    ]
    if removed:
        file.write()
    return removed


def without_classes(pattern: str) -> str:
    """Return a pattern whose brackets stand for themselves, which git takes for a set."""
    return re.sub(r"(?<!\\)([\[\]])", r"\\\1", pattern)


def _as_meant(folder: Path, pattern: str) -> str:
    """Return ``my model \\[v1\\]/*`` for ``my model [v1]/*`` where there is such a folder."""
    plain = without_classes(pattern)
    if plain == pattern or matches(folder, pattern) or not matches(folder, plain):
        return pattern
    return plain


def matches(folder: Path, pattern: str) -> bool:
    """Return whether any file in ``folder``, tracked or not, matches a pattern."""
    glob = pattern.removeprefix("./").lstrip("/")
    glob = f"{glob}**" if glob.endswith("/") else glob
    # As in an attributes file: without a slash, the last part of the path is meant.
    anywhere = glob if "/" in glob or pattern.startswith("/") else f"**/{glob}"
    asked = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = command.run([*asked, "--", f":(glob){anywhere}"], cwd=folder, check=False)
    # To a pathspec a path also matches itself, letter by letter.
    itself = {glob} if without_classes(glob) != glob else set()
    return bool(set(decode(found).split("\0")) - {""} - itself)


def patterns(folder: Path) -> list[str]:
    """Return the patterns that are tracked in ``folder``'s own file."""
    return [unescape(line.pattern) for line in _File.read(folder / FILE).lines() if line.is_ours]


def overridden(folder: Path) -> list[tuple[Line, Line]]:
    """Our lines in ``folder``'s file that a later line takes the effect from, each with that."""
    lines = _File.read(folder / FILE).lines()
    return [
        (ours, later)
        for position, ours in enumerate(lines)
        if ours.is_ours
        for later in lines[position + 1 :]
        if later.overrides(ours)
    ]


def folders(repo: Repository) -> list[Path]:
    """Return the folders of the work tree with an attributes file, tracked or not.

    The top one first.
    """
    if repo.work_tree is None:
        return []
    asked = (FILE, f":(glob)**/{FILE}")
    listed = repo.git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *asked)
    names = {name for name in decode(listed).split("\0") if name}
    files = (
        repo.work_tree / name for name in sorted(names, key=lambda name: (name.count("/"), name))
    )
    return [file.parent for file in files if file.is_file() and not file.is_symlink()]


def effective(repo: Repository, paths: Iterable[str], attribute: str = "filter") -> dict[str, str]:
    """Return an attribute of each path by git: its value, ``unset`` or ``unspecified``."""
    asked = b"".join(encode(path) + b"\0" for path in paths)
    answer = decode(repo.git("check-attr", "-z", "--stdin", attribute, stdin=asked))
    fields = answer.split("\0")[:-1]
    return dict(zip(fields[::3], fields[2::3], strict=True))


def escape(pattern: str) -> str:
    """Return a pattern as git-lfs and we write it: blanks cannot stand in an attributes file."""
    if not pattern or pattern.startswith("!") or "\n" in pattern or pattern.startswith("/.."):
        raise UsageError(
            f"{pattern!r} is not a pattern for .gitattributes",
            hint='a pattern is like "*.safetensors" or "models/**"',
        )
    text = pattern.removeprefix("./")
    text = f"{text}**" if text.endswith("/") else text  # a folder alone matches no file
    for blank in " \t\r":
        text = text.replace(blank, "[[:space:]]")
    if text.startswith("#"):
        return f"\\{text}"
    return text.replace('"', '["]') if text.startswith('"') else text


def unescape(pattern: str) -> str:
    """Return what ``escape`` was given, with every blank a space."""
    return pattern.replace("[[:space:]]", " ").removeprefix("\\") if pattern else pattern


_LARGEST = 100 << 20
"""Bytes; git reads no larger file, and follows no link either (gitattributes(5))."""


class _File:
    """An attributes file being edited; lines keep their endings and their order."""

    def __init__(self, path: Path, lines: list[str]) -> None:
        self._path = path
        self._lines = lines
        crlf = sum(line.endswith("\r\n") for line in lines)
        self._ending = "\r\n" if crlf * 2 > len(lines) else "\n"

    @classmethod
    def read(cls, path: Path) -> _File:
        """Return the file at ``path``, empty where there is none."""
        try:
            text = decode(read_regular(path, _LARGEST))
        except FileNotFoundError:
            text = ""
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageError(f"cannot be read: {reason}", path=str(path)) from error
        # splitlines() would take characters for line breaks that git does not.
        return cls(path, re.findall(r"[^\n]*\n|[^\n]+", text))

    def lines(self) -> list[Line]:
        """Return what is in it."""
        return [Line(number, text) for number, text in enumerate(self._lines, start=1)]

    def track(self, pattern: str) -> bool:
        """Have a working line for ``pattern``; whether anything had to change."""
        lines = self.lines()
        ours = [line for line in lines if line.pattern == pattern and line.is_ours]
        if not ours:
            self._append(f"{pattern} {' '.join(_OURS)}")
            return True
        last = ours[-1]
        lacking = [word for word in _OURS if word not in last.attributes]
        later = any(line.overrides(last) for line in lines[last.number :])
        if not lacking and not later:
            return False
        text = " ".join([pattern, *last.attributes, *lacking])
        del self._lines[last.number - 1]
        self._append(text)
        return True

    def untrack(self, pattern: str) -> bool:
        """Take our attributes from ``pattern``'s lines; whether there were any."""
        found = [line for line in self.lines() if line.pattern == pattern and line.is_ours]
        for line in reversed(found):
            others = [word for word in line.attributes if word not in _OURS]
            kept = [" ".join([pattern, *others]) + self._ending] if others else []
            self._lines[line.number - 1 : line.number] = kept
        return bool(found)

    def _append(self, text: str) -> None:
        if self._lines and not self._lines[-1].endswith("\n"):
            self._lines[-1] += self._ending
        self._lines.append(text + self._ending)

    def write(self) -> None:
        """Replace the file on disk."""
        mode = stat.S_IMODE(self._path.stat().st_mode) if self._path.exists() else 0o644
        with atomic_file(self._path, mode=mode) as file:
            file.write(encode("".join(self._lines)))
