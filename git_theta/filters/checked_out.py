"""Files that were just checked out, of which git is told without their being read and hashed.

Git takes a file for unmodified once all of it has passed the clean filter. A checkout has just
written it, every byte verified: the filter that git then starts is told so, and lets the bytes
pass unseen. What tells that nobody has written to the file since is its stamp; git has read that
before it reads the file, so it notices whatever comes later.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from git_theta.core.hashes import content_hash
from git_theta.core.sharing import make_folder

VARIABLE = "GIT_THETA_CHECKED_OUT"

# Some file systems know times to two seconds; git compares whole seconds, and reads a file again
# whose time is not before that of its index.
_PRECISION = 3


class Stamp(NamedTuple):
    """What differs when a file was replaced or written to; times in ns."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


class CheckedOut(NamedTuple):
    """A file's stamp, and the hash of the text of the manifest that it was made from."""

    stamp: Stamp
    text_hash: str


def backdate(file: BinaryIO) -> Stamp:
    """Give ``file``, which is complete, a time before the one at which others get to see it.

    Whoever writes to it then gives it another time, however coarse the clock.
    """
    seconds = int(time.time()) - _PRECISION
    os.utime(file.fileno(), (seconds, seconds))
    return _stamp(os.fstat(file.fileno()))


def note(file: Path, written: Stamp, text: bytes) -> CheckedOut | None:
    """Return a note of ``file``, which had the stamp ``written`` before it got its name.

    ``None`` where it is not that file any more, or was written to.
    """
    now = _stamp(file.lstat())
    if now[:-1] != written[:-1]:
        return None
    return CheckedOut(now, content_hash(text))


@contextmanager
def handed_over(notes: Mapping[str, CheckedOut], folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment by which a filter below this process learns of ``notes``, by path."""
    from tempfile import NamedTemporaryFile  # which a filter does not need: takes 3 ms to import

    with ExitStack() as stack:
        environment = {}
        with suppress(OSError):  # where nothing may be written, the filter reads the files again
            make_folder(folder)
            file = stack.enter_context(NamedTemporaryFile("w", dir=folder, encoding="ascii"))
            json.dump(notes, file)
            file.flush()
            environment = {VARIABLE: file.name}
        yield environment


def received(environment: Mapping[str, str]) -> dict[str, CheckedOut]:
    """Return the notes that were handed to this process; none where there are none."""
    if VARIABLE not in environment:
        return {}
    notes = json.loads(Path(environment[VARIABLE]).read_text("ascii"))
    return {path: CheckedOut(Stamp(*stamp), hash_) for path, (stamp, hash_) in notes.items()}


def is_untouched(file: Path, noted: CheckedOut) -> bool:
    """Return whether ``file`` still is what was noted."""
    try:
        return _stamp(file.lstat()) == noted.stamp
    except OSError:
        return False


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )
