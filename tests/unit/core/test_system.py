"""Processors and memory."""

from __future__ import annotations

import gc
import os

from git_theta.core import buffers, system


def test_cpu_count_is_what_this_process_may_use() -> None:
    assert system.cpu_count() == len(os.sched_getaffinity(0))


def test_memory_that_lies_idle_is_given_back() -> None:
    buffers.new_buffer(64 << 20)[:] = bytes(64 << 20)
    gc.collect()
    assert buffers._pool._idle
    system.release_memory()
    assert not any(buffers._pool._idle.values())
