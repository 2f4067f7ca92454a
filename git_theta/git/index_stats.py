"""Files that git need not read to know that they are unmodified, as its index says so.

Git takes a file for unmodified that has the times, inode and size of its entry in the index, and
was modified before the index was written; else it reads all of it. A checkpoint that was just
checked out was verified as it was written, and only has to get there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from git_theta.core.file_watch import writers_held_off
from git_theta.git import index_file
from git_theta.git.blob_files import git_blob
from git_theta.git.index_file import IndexEntry, numbers

_SECOND = 1_000_000_000


class Written(NamedTuple):
    """A file whose bytes are known: where it is, its status, and what git stores of it."""

    file: Path
    status: os.stat_result
    text: bytes


def backdate(file: BinaryIO, since: int) -> os.stat_result | None:
    """Give ``file``, which is complete, the time ``since`` (ns), before others see it.

    Whoever writes to it then gives it another second. Returns its status; ``None``, and the file
    keeps its time, where that second is not over, or the system knows none shorter.
    """
    return _backdate(file, since, os.fstat(file.fileno()).st_mtime_ns)


def _backdate(file: BinaryIO, since: int, latest: int) -> os.stat_result | None:
    """Give ``file`` the time ``since``, if a second began between it and ``latest`` (ns)."""
    is_coarse = os.fstat(file.fileno()).st_mtime_ns % _SECOND == 0
    if is_coarse or since // _SECOND >= latest // _SECOND:
        return None
    os.utime(file.fileno(), ns=(since, since))
    return os.fstat(file.fileno())


def placed(file: Path, before: os.stat_result) -> os.stat_result | None:
    """Return the status of ``file``, which had the one ``before`` until it got its name.

    ``None`` where it is not that file any more, or was written to.
    """
    try:
        now = file.lstat()
    except FileNotFoundError:
        return None
    same = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    return now if all(getattr(now, name) == getattr(before, name) for name in same) else None


def record(index: Path, written: Mapping[str, Written]) -> set[str]:
    """Let ``index`` say that files, by path, are unmodified; return the paths of which it does.

    The others were changed since, or the index has other content for them, or is not written here
    (see ``index_file.edit``): git must read them.
    """
    choices = {path: partial(_if_known, of) for path, of in written.items()}
    return index_file.edit(index, choices)


def settle(index: Path, files: Mapping[str, tuple[Path, int]]) -> set[str]:
    """Spare git from reading ``files``, by path, which it wrote in the same second as ``index``.

    With each comes the time (ns) at which git began to write it. It gets that time, there and
    here, where it lies in a second before the index's: an older one would hide from ``make`` that
    the file is newer than what was made of the one before it. Those that anybody has open to
    write, and those of which the index does not have every number, to the ns, are left alone.
    Returns the others. No lock is taken where there are none, or git was told to take none that it
    can do without.
    """
    if os.environ.get("GIT_OPTIONAL_LOCKS") in ("0", "false", "no", "off"):
        return set()
    recent = {path: of for path, of in files.items() if _is_recent(*of, index)}
    choices = {path: partial(_if_unmodified, *of) for path, of in recent.items()}
    return index_file.edit(index, choices, patience=0) if choices else set()


def _is_recent(file: Path, since: int, index: Path) -> bool:
    """Return whether git would read ``file`` for its time alone, and would not for ``since``."""
    try:
        limit = index.stat().st_mtime_ns // _SECOND
        return since // _SECOND < limit <= file.lstat().st_mtime_ns // _SECOND
    except OSError:
        return False


def _if_known(of: Written, entry: IndexEntry) -> os.stat_result | None:
    """Return the file's status, if the entry has what it was made from and nobody changed it."""
    digest = git_blob(entry.blob.hex(), len(of.text))
    digest.update(of.text)
    try:
        status = of.file.lstat()
    except OSError:
        return None
    # Git stores a size of which 32 bits are 0 as what it must read, or in another way.
    is_known = numbers(status) == numbers(of.status) and bool(numbers(status)[-1])
    return status if is_known and digest.digest() == entry.blob else None


def _if_unmodified(file: Path, since: int, entry: IndexEntry) -> os.stat_result | None:
    """Return the status of the file with another time, if it is what its entry says."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as opened, writers_held_off(opened) as alone:
        if not alone or numbers(os.fstat(descriptor)) != entry.numbers or not entry.numbers[-1]:
            return None
        return _backdate(opened, since, entry.index_status.st_mtime_ns)
