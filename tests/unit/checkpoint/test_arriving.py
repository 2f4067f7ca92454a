"""Checkpoints decoded while their objects are still on their way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from git_theta.checkpoint import chunk_decoder, smudge
from git_theta.checkpoint.chunk_decoder import DecodedChunk, Frames, Known
from git_theta.checkpoint.chunking import placements
from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.limits import is_paid_in_any_order
from git_theta.core.settings import Settings
from git_theta.errors import MissingObjectError
from git_theta.manifest import Chunk, Manifest
from git_theta.store import Index, ObjectStore
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints

SECONDS = 10
DATA = checkpoints.safetensors(checkpoints.tensors(rows=100))
SETTINGS = Settings(chunk_size=4096, pack_limit=1024)


@pytest.fixture
def whole(tmp_path: Path) -> StorageContext:
    """Where everything is."""
    root = tmp_path / "whole"
    with Index(root) as index:
        yield StorageContext(ObjectStore(root), index, SETTINGS)


@pytest.fixture
def described(whole, monkeypatch) -> Manifest:
    monkeypatch.setattr(smudge, "BATCH", 1)
    return clean(MemorySource(DATA), "m.safetensors", whole).manifest


@pytest.fixture
def arriving(tmp_path: Path, described) -> StorageContext:
    """Where everything is on its way."""
    root = tmp_path / "arriving"
    with Index(root) as index:
        storage = StorageContext(ObjectStore(root), index, SETTINGS)
        storage.store.arrivals.expect(described.objects())
        yield storage


def send(oid: str, whole: StorageContext, arriving: StorageContext) -> None:
    arriving.store.adopt(oid, whole.store.size(oid), whole.store.path(oid))


@contextmanager
def beside(arriving: StorageContext) -> Iterator[ThreadPoolExecutor]:
    """A thread that waits for objects, and ends with the test when that fails."""
    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool
        finally:
            arriving.store.arrivals.end()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_has_come_is_given_in_order(described, whole, arriving):
    got = bytearray()

    def read() -> None:
        for piece in smudge.smudge(described, arriving):
            got.extend(piece)

    *most, last = described.objects()
    with beside(arriving) as pool:
        reading = pool.submit(read)
        assert not got
        for oid in most:
            send(oid, whole, arriving)
        until(lambda: len(got) > len(DATA) // 2)
        assert not reading.done()
        send(last, whole, arriving)
        reading.result(timeout=SECONDS)
    assert got == DATA
    assert not arriving.store.arrivals.pending


def test_a_file_is_decoded_before_what_it_begins_with(described, whole, arriving, monkeypatch):
    """And each chunk once."""
    begins = next(placements(described)).chunk.chain[0].oid
    rest = described.objects().keys() - {begins}
    later = {
        chunk.hash for chunk in described.chunks() if begins not in {ref.oid for ref in chunk.chain}
    }
    decoded, decode = list[str](), chunk_decoder.decode

    def noted(frames: Frames, chunk: Chunk, known: Known) -> DecodedChunk:
        decoded.append(chunk.hash)
        return decode(frames, chunk, known)

    monkeypatch.setattr(chunk_decoder, "decode", noted)
    assert len(later) > 3
    with beside(arriving) as pool:
        reading = pool.submit(lambda: b"".join(smudge.smudge(described, arriving)))
        for oid in rest:
            send(oid, whole, arriving)
        until(lambda: len(decoded) >= len(later))
        assert {*decoded} == later
        send(begins, whole, arriving)
        assert reading.result(timeout=SECONDS) == DATA
    assert len(decoded) == len({*decoded})


def test_a_file_is_written_where_chunks_can_be_decoded(described, whole, arriving, tmp_path):
    """git-lfs brings the largest objects first, not those that a file begins with."""
    last, *most = described.objects()

    def written() -> int:
        there = np.frombuffer((tmp_path / "file").read_bytes(), np.uint8)
        return np.count_nonzero(there)

    with (tmp_path / "file").open("w+b") as file, beside(arriving) as pool:
        writing = pool.submit(smudge.smudge_to, described, arriving, file)
        for oid in most:
            send(oid, whole, arriving)
        until(lambda: written() > len(DATA) // 2)
        assert not writing.done()
        send(last, whole, arriving)
        writing.result(timeout=SECONDS)
        assert (tmp_path / "file").read_bytes() == DATA


def test_what_does_not_come_is_missing(described, whole, arriving):
    first, *_ = described.objects()
    send(first, whole, arriving)
    threading.Timer(0.1, arriving.store.arrivals.end).start()
    with pytest.raises(MissingObjectError):
        b"".join(smudge.smudge(described, arriving))


def test_what_is_not_paid_for_waits_for_all_that_pays(whole, tmp_path):
    """Zeros first: their chunks alone are far more than what is stored of them."""
    noise = np.frombuffer(np.random.default_rng(0).bytes(1 << 16), np.uint8)
    data = checkpoints.safetensors({"a": np.zeros(1 << 20, np.uint8), "b": noise})
    described = clean(MemorySource(data), "m.safetensors", whole).manifest
    assert not is_paid_in_any_order(described, 1000)
    assert is_paid_in_any_order(described, 1 << 20)
    *_, last = described.objects()
    got: list[memoryview] = []

    def read(storage: StorageContext) -> bytes:
        got.extend(smudge.smudge(described, storage))
        return b"".join(got)

    with Index(tmp_path) as index:
        settings = Settings(chunk_size=4096, pack_limit=1024, expand_limit=1000)
        storage = StorageContext(ObjectStore(tmp_path), index, settings)
        storage.store.arrivals.expect(described.objects())
        with beside(storage) as pool:
            reading = pool.submit(read, storage)
            for oid in described.objects().keys() - {last}:
                send(oid, whole, storage)
            time.sleep(0.1)
            assert not got
            send(last, whole, storage)
            assert reading.result(timeout=SECONDS) == data
