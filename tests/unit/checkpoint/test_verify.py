from __future__ import annotations

from dataclasses import replace

import pytest

from git_theta.checkpoint.chunking import SourceStream
from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.verify import cut_alike, is_file_of
from git_theta.core.settings import Settings
from git_theta.store import Index, ObjectStore
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints

DATA = checkpoints.safetensors(checkpoints.tensors(rows=100))


@pytest.fixture
def described(tmp_path):
    with Index(tmp_path) as index:
        # The skeleton too is cut into several chunks, some of them around tensors.
        settings = Settings(chunk_size=64, pack_limit=1024)
        storage = StorageContext(ObjectStore(tmp_path), index, settings)
        yield clean(MemorySource(DATA), "m.safetensors", storage).manifest


def _holds(described, data: bytes) -> bool:
    return is_file_of(described, SourceStream(MemorySource(data)), workers=2)


def test_the_file_is_told_from_every_other(described):
    assert len(described.skeleton) > 1
    assert _holds(described, DATA)
    assert not _holds(described, DATA[:-1])
    assert not _holds(described, DATA + b"\0")
    for place in (0, 70, len(DATA) // 2, len(DATA) - 1):
        other = bytearray(DATA)
        other[place] ^= 1
        assert not _holds(described, bytes(other))


def test_a_cut_is_told_from_another(described, tmp_path):
    with Index(tmp_path / "other") as index:
        storage = StorageContext(ObjectStore(tmp_path / "other"), index, Settings(chunk_size=4096))
        other = clean(MemorySource(DATA), "m.safetensors", storage).manifest
    assert other.hash != described.hash
    assert not cut_alike(other, described)
    assert cut_alike(described, replace(described, recipe={"x": 1}))
    assert _holds(other, DATA)
