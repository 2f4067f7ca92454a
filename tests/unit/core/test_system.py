"""Processors and memory."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest

from git_theta.core import buffers, system


def test_cpu_count_is_what_this_process_may_use() -> None:
    assert system.cpu_count() == len(os.sched_getaffinity(0))


def test_memory_that_lies_idle_is_given_back() -> None:
    buffers.new_buffer(64 << 20)[:] = bytes(64 << 20)
    gc.collect()
    assert buffers._pool._idle
    system.release_memory()
    assert not any(buffers._pool._idle.values())


@pytest.mark.parametrize("is_there", [True, False])
def test_writing_back_is_begun_where_the_system_can(tmp_path, monkeypatch, is_there) -> None:
    asked = []
    call = (lambda *arguments: asked.append(arguments)) if is_there else None
    with (tmp_path / "file").open("w+b") as file:
        file.write(bytes(100_000))
        file.flush()
        system.begin_writeback(file, 4096, 8192)
        monkeypatch.setattr(system, "_sync_file_range", lambda: call)
        system.begin_writeback(file, 4096, 8192)
        assert asked == ([(file.fileno(), 4096, 8192, 2)] if is_there else [])
        file.seek(0)
        assert file.read() == bytes(100_000)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_linux_can_write_back(tmp_path: Path) -> None:
    call = system._sync_file_range()
    assert call is not None
    with (tmp_path / "file").open("wb") as file:
        assert call(file.fileno(), 0, 4096, 2) == 0
        assert call(file.fileno(), 0, -1, 2) == -1
