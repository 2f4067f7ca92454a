"""How much of the processor a command got, and how much others used meanwhile."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil


@dataclass
class Load:
    """Processor seconds of the children, and the cores that all other programs kept busy.

    ``others`` does not count what a host takes from a virtual machine.
    """

    processor: float = 0.0
    others: float = 0.0


@contextmanager
def watched() -> Iterator[Load]:
    """Fills the ``Load`` that it yields when the block is left."""
    load = Load()
    begin, children, everybody = time.perf_counter(), _children(), _everybody()
    own = time.process_time()
    yield load
    load.processor = _children() - children
    busy, own = _everybody() - everybody, time.process_time() - own
    load.others = max(0.0, busy - load.processor - own) / (time.perf_counter() - begin)


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _everybody() -> float:
    """Seconds in which processors were neither idle, nor waiting for a disk, nor stolen."""
    times = psutil.cpu_times()
    interrupts = getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0)  # Linux has them
    return float(times.user + times.nice + times.system + interrupts)
