"""Bytes through open files and pipes."""

from __future__ import annotations

import fcntl
import io
import os
import threading
from pathlib import Path

import pytest

from git_theta.core import streams


class TestWriteAll:
    BUFFERS = (b"", b"abc", bytearray(b"de"), memoryview(bytes(range(8))).cast("I"), b"")

    def test_to_a_file_after_what_was_buffered(self, tmp_path: Path) -> None:
        with (tmp_path / "file").open("wb") as file:
            file.write(b"first ")
            streams.write_all(file, [*self.BUFFERS, *[b"x"] * 3_000])
            file.write(b" last")
        assert (tmp_path / "file").read_bytes() == (
            b"first abcde" + bytes(range(8)) + b"x" * 3_000 + b" last"
        )

    def test_to_memory(self) -> None:
        file = io.BytesIO()
        streams.write_all(file, self.BUFFERS)
        assert file.getvalue() == b"abcde" + bytes(range(8))

    def test_to_a_pipe_that_takes_little_at_a_time(self) -> None:
        reader, writer = os.pipe()
        received = bytearray()

        def receive() -> None:
            with os.fdopen(reader, "rb", buffering=0) as file:
                while data := file.read(1000):
                    received.extend(data)

        thread = threading.Thread(target=receive)
        thread.start()
        with os.fdopen(writer, "wb") as file:
            streams.write_all(file, [bytes([n]) * 50_000 for n in range(10)])
        thread.join()
        assert received == b"".join(bytes([n]) * 50_000 for n in range(10))


class TestEnlargePipe:
    @pytest.mark.skipif(not hasattr(fcntl, "F_GETPIPE_SZ"), reason="Linux, Python 3.10")
    def test_enlarges(self) -> None:
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb"), os.fdopen(writer, "wb") as file:
            streams.enlarge_pipe(file, 1 << 18)
            assert fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) >= 1 << 18

    def test_leaves_other_files_alone(self, tmp_path: Path) -> None:
        with (tmp_path / "file").open("wb") as file:
            streams.enlarge_pipe(file, 1 << 18)
        streams.enlarge_pipe(io.BytesIO(), 1 << 18)
