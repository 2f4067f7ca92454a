"""Small frames are read in runs; each reader gets exactly the bytes that its ref names."""

from __future__ import annotations

from pathlib import Path

import pytest

from git_theta.core.hashes import Ref
from git_theta.errors import MissingObjectError
from git_theta.store import ObjectStore, ReadAhead
from git_theta.store import read_ahead as module


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path)


def _refs(store: ObjectStore, content: bytes, step: int) -> list[Ref]:
    whole = store.write([content])
    starts = range(0, len(content), step)
    return [Ref(whole.oid, whole.size, at, min(step, whole.size - at)) for at in starts]


def test_frames_are_read_in_runs(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 400)
    content = bytes(range(256)) * 8
    refs = _refs(store, content, 60)
    others = _refs(store, content[::-1], 60)
    asked = []
    read = store.read
    monkeypatch.setattr(store, "read", lambda ref: asked.append(ref) or read(ref))
    frames = ReadAhead(store)
    for ref, other in zip(refs, others, strict=True):  # a chain alternates between packs
        assert frames.read(ref) == content[ref.offset :][: ref.length]
        assert frames.read(other) == content[::-1][other.offset :][: other.length]
    assert len(asked) <= 2 * (len(content) // 300 + 1)
    for ref in reversed(refs):
        assert frames.read(ref) == content[ref.offset :][: ref.length]


def test_large_frames_and_whole_objects_are_read_as_they_are(store: ObjectStore) -> None:
    content = bytes(range(256)) * 4096
    whole = store.write([content])
    frames = ReadAhead(store)
    assert frames.read(whole) == content
    assert frames.read(Ref(whole.oid, whole.size, 5, 100_000)) == content[5:100_005]


def test_a_missing_object_is_an_error_here_too(store: ObjectStore) -> None:
    with pytest.raises(MissingObjectError):
        ReadAhead(store).read(Ref("ab" * 32, 100, 0, 10))
