"""What became of each version, kept on disk so that a migration that was killed goes on."""

from __future__ import annotations

import os
import re
from pathlib import Path

from git_theta.core.os_errors import store_error
from git_theta.core.sharing import make_folder

_LINE = re.compile(rb"([0-9a-f]{40,64}) ([0-9a-f]{40,64})")


class Journal:
    """New blob by old blob; each line is written when the new one is stored and verified.

    A line that was cut off counts for nothing. Without a file nothing is kept.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known = dict(_read(file)) if file and file.exists() else {}

    def get(self, old: str) -> str | None:
        """Return the new blob of ``old``, if it has one."""
        return self._known.get(old)

    def forget(self, old: str) -> None:
        """Take back what was said of ``old``; the next ``add`` counts."""
        self._known.pop(old, None)

    def add(self, old: str, new: str) -> None:
        """Keep that ``old`` became ``new``. Raises ``StoreError``."""
        self._known[old] = new
        if self._file is None:
            return
        try:
            make_folder(self._file.parent)
            with self._file.open("ab") as file:
                # Behind a line that was cut off, a new one begins.
                begun = file.tell() and not _ends_with_line(self._file)
                file.write(b"\n" * bool(begun) + f"{old} {new}\n".encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise store_error(error, self._file) from error


def _read(file: Path) -> list[tuple[str, str]]:
    try:
        lines = file.read_bytes().split(b"\n")
    except OSError as error:
        raise store_error(error, file) from error
    found = filter(None, map(_LINE.fullmatch, lines[:-1]))
    return [(match[1].decode(), match[2].decode()) for match in found]


def _ends_with_line(file: Path) -> bool:
    with file.open("rb") as reader:
        reader.seek(-1, os.SEEK_END)
        return reader.read(1) == b"\n"
