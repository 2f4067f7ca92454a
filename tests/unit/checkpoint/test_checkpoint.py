from __future__ import annotations

import dataclasses
import os
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest

from git_theta import manifest
from git_theta.checkpoint import smudge as smudging
from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.smudge import smudge, smudge_to
from git_theta.codec import Frame, encode_frame
from git_theta.core.hashes import content_hash
from git_theta.core.layout import Encoded, Part
from git_theta.core.settings import Settings
from git_theta.errors import CorruptObjectError, ManifestError, MissingObjectError
from git_theta.manifest import Chunk
from git_theta.store import Index, ObjectStore, soundness
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints
from tests.support.manifests import entry_named


@pytest.fixture
def storage(tmp_path: Path):
    with Index(tmp_path) as index:
        yield StorageContext(
            ObjectStore(tmp_path), index, Settings(chunk_size=4096, pack_limit=1024)
        )


def _clean(storage: StorageContext, data: bytes, parents=(), name: str = "m.safetensors"):
    return clean(MemorySource(data), name, storage, parents).manifest


def _smudge(storage: StorageContext, described: manifest.Manifest) -> bytes:
    return b"".join(smudge(described, storage))


def _oids(storage: StorageContext) -> set[str]:
    return set(storage.store.oids())


@pytest.mark.parametrize("seed", range(3))
def test_a_checkpoint_comes_back_byte_for_byte(storage, seed, tmp_path):
    data = checkpoints.safetensors(checkpoints.tensors(seed, rows=100))
    described = _clean(storage, data)
    assert described.format == "safetensors"
    assert manifest.parse(manifest.dump(described)) == described
    assert _smudge(storage, described) == data
    with (tmp_path / "file").open("w+b") as file:
        smudge_to(described, storage, file)
        assert file.read() == data


def test_all_of_a_file_is_written_back_while_it_is_decoded(storage, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(smudging, "begin_writeback", lambda file, *place: begun.append(place))
    data = checkpoints.safetensors(checkpoints.tensors(0, rows=60_000))
    described = _clean(storage, data)
    with (tmp_path / "file").open("w+b") as file:
        smudge_to(described, storage, file)
    begun.sort()
    assert len(begun) > 1
    assert [start for start, _ in begun] == [0, *accumulate(length for _, length in begun)][:-1]
    assert sum(length for _, length in begun) == len(data)


@pytest.mark.parametrize(
    "data", [b"x", b"no checkpoint at all" * 1000, bytes(range(256)) * 100], ids=["1", "2", "3"]
)
def test_what_no_format_knows_is_kept_whole_with_a_warning(storage, data):
    result = clean(MemorySource(data), "m.safetensors", storage)
    assert result.manifest.format == "opaque"
    assert result.warning
    assert _smudge(storage, result.manifest) == data


def test_the_same_bytes_again_store_nothing(storage):
    data = checkpoints.safetensors()
    first = _clean(storage, data)
    before = _oids(storage)
    assert _clean(storage, data) == first
    assert _oids(storage) == before


def test_a_changed_tensor_costs_only_itself(storage):
    arrays = checkpoints.tensors(layers=4)
    first = _clean(storage, checkpoints.safetensors(arrays))
    arrays["layer.2.bias"] = arrays["layer.2.bias"] + 1
    second = _clean(storage, checkpoints.safetensors(arrays), [first])
    changed = set(second.tensors) - set(first.tensors)
    assert {entry.name for entry in changed} == {"layer.2.bias"}
    assert second.skeleton == first.skeleton
    assert _smudge(storage, second) == checkpoints.safetensors(arrays)


def test_tensors_are_found_again_in_other_files(storage):
    arrays = checkpoints.tensors(layers=4)
    whole = _clean(storage, checkpoints.safetensors(arrays))
    known = {ref for entry in whole.tensors for chunk in entry.chunks for ref in chunk.chain}
    for prefix in ("layer.0", "layer.3"):
        part = {name: array for name, array in arrays.items() if name.startswith(prefix)}
        shard = _clean(storage, checkpoints.safetensors(part))
        assert {r for entry in shard.tensors for c in entry.chunks for r in c.chain} <= known


def test_equal_tensors_of_one_file_are_stored_once(storage):
    array = np.random.default_rng(0).standard_normal((100, 32)).astype(np.float32)
    described = _clean(storage, checkpoints.safetensors({"a": array, "b": array}))
    a, b = described.tensors
    assert a.chunks == b.chunks


def test_the_result_does_not_depend_on_threads(tmp_path):
    data = checkpoints.safetensors(checkpoints.tensors(rows=300, layers=5))
    texts = set()
    for threads in (1, 2, 5):
        root = tmp_path / str(threads)
        with Index(root) as index:
            settings = Settings(chunk_size=4096, pack_limit=1024, threads=threads)
            texts.add(
                manifest.dump(_clean(StorageContext(ObjectStore(root), index, settings), data))
            )
    assert len(texts) == 1


def test_a_fine_tune_is_a_difference_and_chains_stay_short(storage):
    arrays = checkpoints.tensors(rows=200)
    described = _clean(storage, checkpoints.safetensors(arrays))
    rng = np.random.default_rng(5)
    depths = []
    for _ in range(12):
        noise = 1e-5 * rng.standard_normal((200, 32))
        arrays["layer.0.weight"] = (arrays["layer.0.weight"] + noise).astype(np.float32)
        data = checkpoints.safetensors(arrays)
        described = _clean(storage, data, [described])
        entry = entry_named(described, "layer.0.weight")
        depths.append(max(len(chunk.chain) for chunk in entry.chunks))
        assert _smudge(storage, described) == data
    assert max(depths) <= storage.settings.max_depth
    assert max(depths) > 1


def test_a_missing_object_is_named(storage):
    described = _clean(storage, checkpoints.safetensors())
    oid = next(iter(described.objects()))
    storage.store.path(oid).unlink()
    with pytest.raises(MissingObjectError, match=oid[:12]):
        _smudge(storage, described)


def test_a_damaged_object_is_an_error_and_named(storage):
    data = checkpoints.safetensors(checkpoints.tensors(rows=500))
    described = _clean(storage, data)
    ref = described.tensors[-1].chunks[0].chain[0]
    path = storage.store.path(ref.oid)
    path.chmod(0o644)
    damaged = bytearray(path.read_bytes())
    damaged[ref.offset + ref.length - 1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptObjectError, match=ref.oid[:12]):
        _smudge(storage, described)


def test_a_manifest_whose_pieces_are_swapped_is_an_error(storage):
    arrays = checkpoints.tensors()
    described = _clean(storage, checkpoints.safetensors(arrays))
    text = manifest.dump(described).decode()
    zero, one = (entry_named(described, f"layer.{layer}.bias").chunks[0].hash for layer in (0, 1))
    swapped = text.replace(zero, "?").replace(one, zero).replace("?", one)
    with pytest.raises(ManifestError, match="not that of its chunks"):
        manifest.parse(swapped.encode())


def test_lost_objects_are_stored_again(storage):
    data = checkpoints.safetensors()
    described = _clean(storage, data)
    for oid in _oids(storage):
        storage.store.path(oid).unlink()
    assert _clean(storage, data) == described
    assert _smudge(storage, described) == data


@pytest.mark.parametrize("object_size", [0, 30_000])
def test_large_frames_share_objects_where_they_are_to(tmp_path, object_size):
    content = np.random.default_rng(0).bytes(100_000)
    with Index(tmp_path) as index:
        settings = Settings(chunk_size=5_000, pack_limit=1, object_size=object_size)
        storage = StorageContext(ObjectStore(tmp_path), index, settings)
        described = _clean(storage, content)
        assert _smudge(storage, described) == content
    objects = described.objects()
    assert len(objects) == (4 if object_size else 20)


@pytest.mark.parametrize("pack_limit", [1, 1 << 20], ids=["objects", "packs"])
@pytest.mark.parametrize("loss", ["flipped", "cut off", "gone", "trashed"])
@pytest.mark.parametrize("change", [0, 1e-4], ids=["full", "delta"])
def test_what_was_lost_is_made_again_from_the_same_bytes(tmp_path, pack_limit, loss, change):
    arrays = checkpoints.tensors(rows=200)
    settings = Settings(pack_limit=pack_limit)
    with Index(tmp_path) as index:
        first = StorageContext(ObjectStore(tmp_path), index, settings)
        base = _clean(first, checkpoints.safetensors(arrays))
        data = checkpoints.safetensors(checkpoints.finetuned(arrays, scale=change))
        described = _clean(first, data, [base])
        others = set(base.objects()) if change else set()
        for oid in set(described.objects()) - others:
            _lose(first.store, oid, loss)
        first.store.close()
        second = StorageContext(ObjectStore(tmp_path), index, settings)
        assert _clean(second, data, [described, base]) == described
        assert not second.unsound(described.objects())
        for oid in _oids(second):
            second.store.verify(oid)


def _lose(store: ObjectStore, oid: str, how: str) -> None:
    path = store.path(oid)
    content = path.read_bytes()
    if how == "trashed":
        store.trash.discard(oid)
        return
    path.unlink()
    if how == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "cut off":
        path.write_bytes(content[:-1])


def test_a_base_in_an_encoding_that_is_not_installed_is_done_without(storage):
    arrays = checkpoints.tensors()
    parent = _clean(storage, checkpoints.safetensors(arrays))
    claimed = arrays["layer.0.weight"].tobytes()
    parts = Encoded(b"", (Part(1, claimed),))
    frame = encode_frame(Frame(200, "F32", len(claimed), content_hash(claimed), None, parts))
    chunk = Chunk(len(claimed), content_hash(claimed), (storage.store.write(frame),))
    entry = next(e for e in parent.tensors if e.name == "layer.0.weight")
    tensors = tuple(
        dataclasses.replace(e, chunks=(chunk,)) if e is entry else e for e in parent.tensors
    )
    theirs = dataclasses.replace(parent, tensors=tensors)
    data = checkpoints.safetensors(checkpoints.finetuned(arrays))
    described = _clean(storage, data, [theirs])
    assert _smudge(storage, described) == data
    (stored,) = (e for e in described.tensors if e.name == "layer.0.weight")
    assert len(stored.chunks[0].chain) == 1


def test_objects_are_hashed_once_until_they_change(storage, monkeypatch):
    described = _clean(storage, checkpoints.safetensors())
    objects, hashed = described.objects(), []

    def counting(file, oid, size):
        hashed.append(oid)
        return soundness.check(file, oid, size)

    monkeypatch.setattr("git_theta.store.objects.check", counting)

    def unsound() -> dict[str, int]:
        command = StorageContext(ObjectStore(storage.store.root), storage.index)
        return command.unsound({**objects, "0" * 64: 5})

    assert unsound() == {"0" * 64: 5}
    assert hashed == [], "what was written was known"
    for oid in objects:
        os.utime(storage.store.path(oid), (1, 1))
    for _ in range(2):
        assert unsound() == {"0" * 64: 5}
    assert sorted(hashed) == sorted(objects)


def test_objects_that_serve_again_look_new_to_a_collection(storage):
    data = checkpoints.safetensors()
    _clean(storage, data)
    files = [storage.store.path(oid) for oid in _oids(storage)]
    storage.store.close()  # and another command begins
    for file in files:
        os.utime(file, (1, 1))
    _clean(storage, data)
    assert all(file.stat().st_mtime > 1 for file in files)
