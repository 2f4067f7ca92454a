"""What is verified of a chain of frames, and which object is named where one is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from git_theta.checkpoint import chunk_decoder, chunk_encoder
from git_theta.checkpoint.chunk_decoder import Base, all_bases
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.smudge import smudge
from git_theta.core.dtypes import dtype
from git_theta.core.hashes import Ref, content_hash
from git_theta.core.layout import Geometry
from git_theta.core.messages import short_id
from git_theta.errors import CorruptObjectError
from git_theta.manifest import Chunk, Manifest
from git_theta.store import Index, ObjectStore

WORDS = 300_000


class Pair(NamedTuple):
    """A chunk that is stored as a difference, and the bytes of both it and its base."""

    chunk: Chunk
    raw: np.ndarray
    base: np.ndarray
    store: ObjectStore

    @property
    def top(self) -> Ref:
        return self.chunk.chain[0]

    @property
    def bottom(self) -> Ref:
        return self.chunk.chain[1]


def _pair(root: Path, base_words: int, words: int) -> Pair:
    store, geometry = ObjectStore(root), Geometry(dtype("F32"))
    random = np.random.default_rng(0)
    base = random.standard_normal(base_words, np.float32)
    raw = base[:words].copy()
    raw[::50] += 1
    frames, below = [], None
    for data in (base.tobytes(), raw.tobytes()):
        made = chunk_encoder.encode(data, content_hash(data), geometry, below)
        frames.append(store.write(made.frame))
        chain = (*reversed(frames),)
        below = Base(content_hash(data), np.frombuffer(data, np.uint8), chain)
    assert made.base == content_hash(base.tobytes())
    chunk = Chunk(raw.nbytes, content_hash(raw.tobytes()), chain)
    return Pair(chunk, raw.view(np.uint8), base.view(np.uint8), store)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return _pair(tmp_path, WORDS, WORDS)


def _rot(pair: Pair, word: int) -> None:
    """Flip a bit of the mantissa of a word of the base, in its object."""
    path = pair.store.path(pair.bottom.oid)
    stored = bytearray(path.read_bytes())
    plane = pair.base[::4].tobytes()  # noise, which is stored as it is
    at = stored.index(plane[:64]) + word
    assert stored[at] == plane[word]
    stored[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(stored)


def _hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    lengths = []

    def counting(data: memoryview) -> str:
        lengths.append(len(data))
        return content_hash(data)

    monkeypatch.setattr(chunk_decoder, "content_hash", counting)
    return lengths


def test_of_a_base_that_is_known_no_hash_is_computed(pair, monkeypatch):
    lengths = _hashed(monkeypatch)
    asked = []

    def known(content: str, ref: Ref) -> bool:
        asked.append((content, ref))
        return True

    found = chunk_decoder.decode(pair.store, pair.chunk, known)
    assert np.array_equal(found.data, pair.raw)
    assert asked == [(content_hash(pair.base.data), pair.bottom)]
    assert lengths == [pair.raw.size]
    assert [row.ref for row in found.locations] == [pair.top]
    assert found.expanded == pair.base.size + pair.raw.size


def test_every_link_is_verified_where_no_base_is_known(pair, monkeypatch):
    lengths = _hashed(monkeypatch)
    found = chunk_decoder.decode(pair.store, pair.chunk)
    assert lengths == [pair.base.size, pair.raw.size]
    assert [row.ref for row in found.locations] == [pair.bottom, pair.top]


def test_a_small_base_is_verified_whatever_is_known(tmp_path):
    pair = _pair(tmp_path, 20_000, 20_000)
    found = chunk_decoder.decode(pair.store, pair.chunk, all_bases)
    assert [row.ref for row in found.locations] == [pair.bottom, pair.top]


@pytest.mark.parametrize("known", [chunk_decoder.all_bases, lambda content, ref: False])
def test_the_object_at_fault_is_named_whether_or_not_it_was_known(pair, known):
    _rot(pair, 1000)
    with pytest.raises(CorruptObjectError, match=short_id(pair.bottom.oid)):
        chunk_decoder.decode(pair.store, pair.chunk, known)


def test_a_right_result_does_not_prove_its_base(tmp_path):
    pair = _pair(tmp_path, WORDS + 100, WORDS)
    _rot(pair, WORDS + 50)
    found = chunk_decoder.decode(pair.store, pair.chunk, all_bases)
    assert np.array_equal(found.data, pair.raw)
    assert [row.ref for row in found.locations] == [pair.top]
    with pytest.raises(CorruptObjectError, match=short_id(pair.bottom.oid)):
        chunk_decoder.decode(pair.store, pair.chunk)


def test_nothing_is_encoded_against_a_base_that_is_wrong(pair):
    assert np.array_equal(chunk_decoder.decode_bases(pair.store, (pair.bottom,))[0].data, pair.base)
    _rot(pair, 1000)
    with pytest.raises(CorruptObjectError):
        chunk_decoder.decode_bases(pair.store, (pair.bottom,))


def test_what_several_chunks_share_is_verified(pair, monkeypatch):
    lengths = _hashed(monkeypatch)
    base = Chunk(pair.base.size, content_hash(pair.base.data), (pair.bottom,))
    first, second = chunk_decoder.decode_each(pair.store, [pair.chunk, base])
    assert np.array_equal(second.data, pair.base)
    assert lengths == [pair.base.size, pair.raw.size]
    assert [row.ref for row in first.locations] == [pair.bottom, pair.top]


def test_a_base_is_verified_by_the_first_checkout_alone(pair, tmp_path, monkeypatch):
    described = Manifest("opaque", pair.raw.size, (pair.chunk,), ())
    lengths = _hashed(monkeypatch)
    with Index(tmp_path) as index:
        storage = StorageContext(pair.store, index)
        for most in (2, 1):
            assert b"".join(smudge(described, storage)) == pair.raw.tobytes()
            assert len(lengths) == most
            assert index.knows(content_hash(pair.base.data), pair.bottom)
            assert not index.knows(content_hash(pair.base.data), pair.top)
            lengths.clear()
        _rot(pair, 1000)
        with pytest.raises(CorruptObjectError, match=short_id(pair.bottom.oid)):
            list(smudge(described, storage))
        assert not index.knows(content_hash(pair.base.data), pair.bottom)
