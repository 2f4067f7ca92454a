"""Files that were just checked out, which git need not read to know that they are unmodified.

Every byte was verified as it was written. What tells that nobody has written to the file since is
its status: git has that in its index, and notices whatever comes later.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import BinaryIO

# Some file systems know times to two seconds; git compares whole seconds, and reads a file again
# whose time is not before that of its index.
_PRECISION = 3


def backdate(file: BinaryIO, index: Path) -> os.stat_result:
    """Give ``file``, which is complete, a time before the index's, and before others see it.

    Whoever writes to it then gives it another time, however coarse the clock. Returns its status.
    """
    latest = min(time.time(), index.stat().st_mtime) if index.exists() else time.time()
    seconds = int(latest) - _PRECISION
    os.utime(file.fileno(), (seconds, seconds))
    return os.fstat(file.fileno())


def placed(file: Path, before: os.stat_result) -> os.stat_result | None:
    """Return the status of ``file``, which had the one ``before`` until it got its name.

    ``None`` where it is not that file any more, or was written to.
    """
    now = file.lstat()
    same = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    return now if all(getattr(now, name) == getattr(before, name) for name in same) else None
