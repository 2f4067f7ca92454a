"""Patterns of files with tensors in them that are not tracked yet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from git_theta import formats
from git_theta.core.files import FileSource
from git_theta.errors import ThetaError
from git_theta.git import Repository, attributes
from git_theta.git.command import decode

# TensorFlow's and ONNX's; numbers in another file that no format knows may be sound or a picture.
_OF_TENSORS = re.compile(r"\.(data-[0-9]+-of-[0-9]+|onnx[._]data)$")
# Smaller files cost a commit nothing.
_LEAST = 64 << 10


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A pattern, the number and bytes of the files that it is for, and their formats."""

    pattern: str
    files: int
    size: int
    formats: tuple[str, ...]


def suggestions(repo: Repository) -> list[Suggestion]:
    """Return patterns for the untracked checkpoints in the user's folder, most bytes first.

    A file counts that has 64 KiB and tensors in a known format, whatever it is called. Files that
    git ignores do not count.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for path in _untracked(repo):
        if known := _checkpoint(path):
            found.setdefault(_pattern(repo, path), []).append(known)
    rows = [
        Suggestion(pattern, len(files), sum(size for size, _ in files), _names(files))
        for pattern, files in found.items()
    ]
    return sorted(rows, key=lambda row: (-row.size, row.pattern))


def _untracked(repo: Repository) -> Iterator[Path]:
    here = _here(repo)
    where = () if here == "." else (f":(literal){here}/",)
    asked = ("--cached", "--others", "--exclude-standard", "-z", "--", *where)
    names = [name for name in decode(repo.git("ls-files", *asked)).split("\0") if name]
    filters = attributes.effective(repo, names)
    yield from (repo.top / name for name in names if filters[name] != "theta")


def _checkpoint(path: Path) -> tuple[int, str] | None:
    """Return bytes and format of a file with tensors; ``None`` for any other."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size < _LEAST:
            return None
        with FileSource(path) as source:
            layout, _ = formats.scan(source, path.name)
            named = layout.format != formats.OPAQUE or _OF_TENSORS.search(path.name)
            return (source.size, layout.format) if layout.spans and named else None
    except (ThetaError, OSError):
        return None  # not to be read, or being written


def _pattern(repo: Repository, path: Path) -> str:
    """Return ``*.safetensors`` for any such file, its place where it has no suffix."""
    if path.suffix:
        return f"*{path.suffix}"
    return f"/{path.relative_to(repo.top / _here(repo)).as_posix()}"


def _here(repo: Repository) -> str:
    return repo.folder.resolve().relative_to(repo.top.resolve()).as_posix()


def _names(files: list[tuple[int, str]]) -> tuple[str, ...]:
    return tuple(sorted({name for _, name in files}))
