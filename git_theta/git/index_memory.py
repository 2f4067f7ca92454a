"""What a hook had put into git's index, for when git writes its own over that.

A command that writes its index several times, such as `git rebase`, reads it once. After the first
time, when our hook writes checkpoints in the place of manifests, it would say for good that these
files are modified: of 730 bytes, say, where they have 40,080.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from git_theta.git import index_file
from git_theta.git.index_file import IndexEntry, numbers


def keep(note: Path, writer: str, index: Path, paths: Iterable[str]) -> None:
    """Write down for process ``writer`` what ``index`` says of files, by path."""
    entries = index_file.read(index, paths)
    found = {path: (entry.blob.hex(), entry.numbers) for path, entry in entries.items()}
    with suppress(OSError):  # of a full disk: what git then says of a file is no harm to it
        note.write_text(f"{writer}\n{json.dumps(found)}", encoding="utf-8")


def restore(note: Path, writer: str, index: Path, top: Path) -> set[str]:
    """Let ``index`` say that again of files below ``top`` that are what they were.

    Returns the paths that the note tells of; none where it is not of process ``writer``, or torn.
    """
    try:
        process, text = note.read_text(encoding="utf-8").split("\n", 1)
        found = json.loads(text) if process == writer else {}
    except (OSError, ValueError):  # ValueError: a hook was ended as it wrote the note
        return set()
    choices = {path: partial(_as_before, top / path, *of) for path, of in found.items()}
    index_file.edit(index, choices)
    return set(found)


def _as_before(file: Path, blob: str, known: list[int], entry: IndexEntry) -> os.stat_result | None:
    """Return the status of a file if it is as ``known``, and its entry of the same content not.

    On a system that knows whole seconds it may have been written to since.
    """
    if entry.blob.hex() != blob or list(entry.numbers) == known or not known[3]:
        return None
    try:
        status = file.lstat()
    except OSError:
        return None
    return status if list(numbers(status)) == known else None
