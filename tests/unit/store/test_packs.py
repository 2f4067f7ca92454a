"""Packs: small frames share objects, the same ones for the same calls."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.core.hashes import Ref
from git_theta.errors import StoreError
from git_theta.store import ObjectStore, PackWriter
from tests.support.failures import largest_file

FRAMES = st.lists(st.lists(st.binary(max_size=40), min_size=1, max_size=4).filter(any), max_size=40)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path)


def pack(store: ObjectStore, frames: list[list[bytes]], limit: int, size: int) -> list[Ref]:
    with PackWriter(store, limit, size) as packs:
        promises = [packs.add(frame) for frame in frames]
    return [promise.result(timeout=0) for promise in promises]


@settings(max_examples=50)
@given(frames=FRAMES, limit=st.integers(1, 60), size=st.integers(1, 200))
def test_every_frame_is_where_its_ref_says(
    tmp_path_factory: pytest.TempPathFactory, frames: list[list[bytes]], limit: int, size: int
) -> None:
    store = ObjectStore(tmp_path_factory.mktemp("packs"))
    refs = pack(store, frames, limit, size)
    for frame, ref in zip(frames, refs, strict=True):
        assert store.read(ref) == b"".join(frame)
        assert ref.is_whole or (ref.length < limit and ref.size < limit + size)
    # Back to back: an object is its frames and nothing else.
    objects = {ref.oid: ref.size for ref in refs}
    for oid, total in objects.items():
        assert sum(ref.length for ref in set(refs) if ref.oid == oid) == total
    assert set(objects) == set(store.oids())


@given(frames=FRAMES)
def test_equal_calls_give_equal_objects(
    tmp_path_factory: pytest.TempPathFactory, frames: list[list[bytes]]
) -> None:
    store = ObjectStore(tmp_path_factory.getbasetemp() / "equal")
    assert pack(store, frames, 30, 100) == pack(store, frames, 30, 100)


def test_packs_are_closed_when_they_have_grown(store: ObjectStore) -> None:
    packs = PackWriter(store, pack_limit=10, pack_size=12)
    first, second = packs.add([b"12345"]), packs.add([b"678", b"9"])
    assert not first.done()
    third = packs.add([b"abc"])
    assert [first.result(0).offset, second.result(0).offset, third.result(0).offset] == [0, 5, 9]
    assert first.result().oid == third.result().oid
    last = packs.add([b"z"])
    assert not last.done()
    packs.flush()
    assert last.result(0).is_whole


@pytest.mark.parametrize("blocks", [1, 3])
def test_packs_of_more_than_fits_in_memory_are_the_same_objects(
    blocks: int, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = [[bytes([n]) * 40, bytes([n + 1]) * 20] for n in range(50)]
    in_memory = pack(ObjectStore(tmp_path / "other"), frames, 1000, 1000)
    monkeypatch.setattr("git_theta.store.packs.IN_MEMORY", 150)
    monkeypatch.setattr("git_theta.store.packs._BLOCK", 64 * blocks)
    refs = pack(store, frames, 1000, 1000)
    assert refs == in_memory
    assert len({ref.oid for ref in refs}) == 3
    for frame, ref in zip(frames, refs, strict=True):
        assert store.read(ref) == b"".join(frame)
    assert not list((store.root / "tmp").iterdir())


def test_a_full_disk_is_told_of_a_pack_in_a_file(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("git_theta.store.packs.IN_MEMORY", 1 << 16)
    with largest_file(1 << 18), pytest.raises(StoreError, match="larger than is allowed"):
        pack(store, [[bytes([number]) * 100_000] for number in range(8)], 1 << 20, 1 << 20)
    assert not list(store.oids())


def test_a_big_frame_does_not_wait(store: ObjectStore) -> None:
    packs = PackWriter(store, pack_limit=10, pack_size=100)
    small = packs.add([b"123"])
    assert packs.add([b"12345", b"67890"]).result(0).is_whole
    assert not small.done()
    packs.flush()


def test_flush_twice_and_empty(store: ObjectStore) -> None:
    packs = PackWriter(store, 10, 100)
    packs.flush()
    promise = packs.add([b"123"])
    packs.flush()
    packs.flush()
    assert store.read(promise.result(0)) == b"123"
    assert len(list(store.oids())) == 1


def test_abort_forgets_the_open_pack(store: ObjectStore) -> None:
    packs = PackWriter(store, 10, 100)
    promise = packs.add([b"123"])
    packs.abort()
    with pytest.raises(CancelledError):
        promise.result(0)
    packs.flush()
    assert not list(store.oids())


def test_an_exception_aborts(store: ObjectStore) -> None:
    with pytest.raises(RuntimeError), PackWriter(store, 10, 100) as packs:  # noqa: PT012
        promise = packs.add([b"123"])
        raise RuntimeError
    assert isinstance(promise.exception(0), CancelledError)
    assert not list(store.oids())


def test_a_failed_write_reaches_every_frame_of_the_pack(store: ObjectStore) -> None:
    packs = PackWriter(store, 1 << 20, 1 << 20)
    promises = [packs.add([bytes([n]), bytes(300_000)]) for n in range(3)]
    with largest_file(1 << 16):
        with pytest.raises(StoreError):
            packs.flush()
        big = packs.add([bytes(2 << 20)])
    assert all(isinstance(promise.exception(0), StoreError) for promise in [*promises, big])
    with pytest.raises(StoreError):
        packs.flush()
    assert not list(store.oids())


def test_threads(store: ObjectStore) -> None:
    packs = PackWriter(store, pack_limit=200, pack_size=2_000)
    frames = [[n.to_bytes(2, "little") * (1 + n % 120)] for n in range(4_000)]
    barrier = threading.Barrier(4)

    def add(first: int) -> list[tuple[int, Ref]]:
        barrier.wait()
        promises = [(n, packs.add(frames[n])) for n in range(first, len(frames), 4)]
        barrier.wait()
        if first == 0:
            packs.flush()
        return [(n, promise.result(timeout=30)) for n, promise in promises]

    with ThreadPoolExecutor(4) as pool:
        for placed in pool.map(add, range(4)):
            for n, ref in placed:
                assert store.read(ref) == frames[n][0]
