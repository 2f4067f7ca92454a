"""Progress of git-lfs with an upload, by the file that ``GIT_LFS_PROGRESS`` names."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from git_theta.core.progress import Progress
from git_theta.core.system import memory_folder

_POLL_SECONDS = 0.2

# upload 1/2 32768/100000 /path/of/the/object: bytes so far and in all, of one file.
_LINE = re.compile(r"upload \d+/\d+ (\d+)/\d+ (.+)")


@dataclass(slots=True)
class Log:
    """The file that git-lfs writes to, and the oids that it wrote about: those that it sends.

    Custom transfer agents may send others of which nothing is written.
    """

    file: Path
    sent: set[str] = field(default_factory=set)


@contextmanager
def follow(progress: Progress, sizes: Mapping[str, int]) -> Iterator[Log]:
    """Provide a file for git-lfs to write to, read as it grows; ``sizes`` are each object's bytes.

    Remotes that are folders get no lines, and objects that a remote has already are not counted.
    """
    ended = threading.Event()
    progress.start("Uploading", sum(sizes.values()))
    # git-lfs syncs the file for each 32 KB that it sends (tq/progress): 860 times for 28 MB, which
    # took 6 of 8 s on a disk that syncs in 7 ms.
    with TemporaryDirectory(prefix="git-theta-", dir=memory_folder()) as folder:
        log = Log(Path(folder) / "progress")
        log.file.touch()
        reader = threading.Thread(target=_read, args=(log, progress, ended), daemon=True)
        reader.start()
        try:
            yield log
        finally:
            ended.set()
            reader.join()
            progress.finish()


def _read(log: Log, progress: Progress, ended: threading.Event) -> None:
    done: dict[str, int] = {}
    with log.file.open(encoding="utf-8", errors="replace") as file:
        while True:
            is_last = ended.wait(_POLL_SECONDS)
            for name, count in _counts(file):
                progress.advance(count - done.get(name, 0))
                done[name] = count
                log.sent.add(Path(name).name)
            if is_last:
                return


def _counts(lines: Iterable[str]) -> Iterator[tuple[str, int]]:
    for line in lines:
        if match := _LINE.match(line):
            yield match[2], int(match[1])
