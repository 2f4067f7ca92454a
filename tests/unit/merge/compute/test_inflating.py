from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest

from git_theta.errors import MergeError
from git_theta.merge.compute import inflating
from git_theta.merge.compute.inflating import Inflated, inflate


def deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_checksum_and_length_of_what_it_inflates_to(step: int) -> None:
    for data in (b"", b"x", bytes(3_000_000), np.random.default_rng(0).bytes(9999)):
        stream = deflated(data)
        pieces = [stream[at : at + step] for at in range(0, len(stream), step)]
        assert inflate(pieces) == Inflated(zlib.crc32(data), len(data))


def test_little_memory_is_taken() -> None:
    stream = deflated(bytes(64 << 20))
    tracemalloc.start()
    assert inflate([stream]).length == 64 << 20
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_what_is_no_stream_is_refused(monkeypatch) -> None:
    stream = deflated(bytes(9000))
    monkeypatch.setattr(inflating, "_MOST", 8999)
    wrong = {
        "is damaged": b"\xff" * 9,
        "is not one stream": stream[:-1],
        "inflates to 2 GiB": stream,
    }
    for reason, data in wrong.items():
        with pytest.raises(MergeError, match=reason):
            inflate([data])
    with pytest.raises(MergeError, match="is not one stream"):
        inflate([deflated(b"a") + b"b"])
