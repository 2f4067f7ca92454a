"""How much of the processor a command got, and how much others used meanwhile."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")


@dataclass
class Load:
    """Processor seconds of the children, and the cores that all other programs kept busy.

    ``others`` is ``None`` where the system has no /proc. What a host takes from a virtual machine
    is not in it.
    """

    processor: float = 0.0
    others: float | None = None


@contextmanager
def watched() -> Iterator[Load]:
    """Fills the ``Load`` that it yields when the block is left."""
    load = Load()
    begin, children, everybody = time.perf_counter(), _children(), _everybody()
    own = time.process_time()
    yield load
    load.processor = _children() - children
    after, own = _everybody(), time.process_time() - own
    if everybody is not None and after is not None:
        elapsed = time.perf_counter() - begin
        load.others = max(0.0, after - everybody - load.processor - own) / elapsed


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _everybody() -> float | None:
    """Seconds in which processors were neither idle, nor waiting for a disk, nor stolen."""
    try:
        fields = _STAT.read_text().splitlines()[0].split()[1:]
    except OSError:
        return None
    user, nice, system, _, _, interrupt, soft, *_ = map(int, fields)
    return (user + nice + system + interrupt + soft) / os.sysconf("SC_CLK_TCK")
