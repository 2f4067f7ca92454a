from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from git_theta import manifest
from git_theta.checkpoint import Workshop, clean, smudge
from git_theta.errors import CorruptObjectError, MissingObjectError
from git_theta.ids import content_hash
from git_theta.settings import Settings
from git_theta.store import Index, ObjectStore
from git_theta.system import MemorySource
from tests.support import checkpoints


@pytest.fixture
def workshop(tmp_path: Path):
    with Index(tmp_path) as index:
        yield Workshop(ObjectStore(tmp_path), index, Settings(chunk_size=4096, pack_limit=1024))


def _clean(workshop: Workshop, data: bytes, parents=(), name: str = "m.safetensors"):
    return clean(MemorySource(data), name, workshop, parents).manifest


def _smudge(workshop: Workshop, described: manifest.Manifest) -> bytes:
    return b"".join(smudge(described, workshop))


def _oids(workshop: Workshop) -> set[str]:
    return set(workshop.store.oids())


@pytest.mark.parametrize("seed", range(3))
def test_a_checkpoint_comes_back_byte_for_byte(workshop, seed):
    data = checkpoints.safetensors(checkpoints.tensors(seed, rows=100))
    described = _clean(workshop, data)
    assert described.format == "safetensors"
    assert described.hash == content_hash(data)
    assert manifest.parse(manifest.dump(described)) == described
    assert _smudge(workshop, described) == data


@pytest.mark.parametrize(
    "data", [b"x", b"no checkpoint at all" * 1000, bytes(range(256)) * 100], ids=["1", "2", "3"]
)
def test_what_no_format_knows_is_kept_whole_with_a_warning(workshop, data):
    result = clean(MemorySource(data), "m.safetensors", workshop)
    assert result.manifest.format == "opaque"
    assert result.warning
    assert _smudge(workshop, result.manifest) == data


def test_the_same_bytes_again_store_nothing(workshop):
    data = checkpoints.safetensors()
    first = _clean(workshop, data)
    before = _oids(workshop)
    assert _clean(workshop, data) == first
    assert _oids(workshop) == before


def test_a_changed_tensor_costs_only_itself(workshop):
    arrays = checkpoints.tensors(layers=4)
    first = _clean(workshop, checkpoints.safetensors(arrays))
    arrays["layer.2.bias"] = arrays["layer.2.bias"] + 1
    second = _clean(workshop, checkpoints.safetensors(arrays), [first])
    changed = set(second.tensors) - set(first.tensors)
    assert {entry.name for entry in changed} == {"layer.2.bias"}
    assert second.skeleton == first.skeleton
    assert _smudge(workshop, second) == checkpoints.safetensors(arrays)


def test_tensors_are_found_again_in_other_files(workshop):
    arrays = checkpoints.tensors(layers=4)
    whole = _clean(workshop, checkpoints.safetensors(arrays))
    known = {ref for entry in whole.tensors for chunk in entry.chunks for ref in chunk.chain}
    for prefix in ("layer.0", "layer.3"):
        part = {name: array for name, array in arrays.items() if name.startswith(prefix)}
        shard = _clean(workshop, checkpoints.safetensors(part))
        assert {r for entry in shard.tensors for c in entry.chunks for r in c.chain} <= known


def test_equal_tensors_of_one_file_are_stored_once(workshop):
    array = np.random.default_rng(0).standard_normal((100, 32)).astype(np.float32)
    described = _clean(workshop, checkpoints.safetensors({"a": array, "b": array}))
    a, b = described.tensors
    assert a.chunks == b.chunks


def test_the_result_does_not_depend_on_threads(tmp_path):
    data = checkpoints.safetensors(checkpoints.tensors(rows=300, layers=5))
    texts = set()
    for threads in (1, 2, 5):
        root = tmp_path / str(threads)
        with Index(root) as index:
            settings = Settings(chunk_size=4096, pack_limit=1024, threads=threads)
            texts.add(manifest.dump(_clean(Workshop(ObjectStore(root), index, settings), data)))
    assert len(texts) == 1


def test_a_fine_tune_is_a_difference_and_chains_stay_short(workshop):
    arrays = checkpoints.tensors(rows=200)
    described = _clean(workshop, checkpoints.safetensors(arrays))
    rng = np.random.default_rng(5)
    depths = []
    for _ in range(12):
        noise = 1e-5 * rng.standard_normal((200, 32))
        arrays["layer.0.weight"] = (arrays["layer.0.weight"] + noise).astype(np.float32)
        data = checkpoints.safetensors(arrays)
        described = _clean(workshop, data, [described])
        entry = described.tensor("layer.0.weight")
        depths.append(max(len(chunk.chain) for chunk in entry.chunks))
        assert _smudge(workshop, described) == data
    assert max(depths) <= workshop.settings.max_depth
    assert max(depths) > 1


def test_a_missing_object_is_named(workshop):
    described = _clean(workshop, checkpoints.safetensors())
    oid = next(iter(described.objects()))
    workshop.store.remove(oid)
    with pytest.raises(MissingObjectError, match=oid):
        _smudge(workshop, described)


def test_a_damaged_object_is_an_error_and_named(workshop):
    data = checkpoints.safetensors(checkpoints.tensors(rows=500))
    described = _clean(workshop, data)
    ref = described.tensors[-1].chunks[0].chain[0]
    path = workshop.store.path(ref.oid)
    path.chmod(0o644)
    damaged = bytearray(path.read_bytes())
    damaged[ref.offset + ref.length - 1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptObjectError, match=ref.oid):
        _smudge(workshop, described)


def test_a_manifest_whose_pieces_are_swapped_is_an_error(workshop):
    arrays = checkpoints.tensors()
    described = _clean(workshop, checkpoints.safetensors(arrays))
    text = manifest.dump(described).decode()
    zero, one = (described.tensor(f"layer.{layer}.bias").chunks[0].hash for layer in (0, 1))
    swapped = text.replace(zero, "x").replace(one, zero).replace("x", one)
    with pytest.raises(CorruptObjectError):
        _smudge(workshop, manifest.parse(swapped.encode()))


def test_lost_objects_are_stored_again(workshop):
    data = checkpoints.safetensors()
    described = _clean(workshop, data)
    for oid in _oids(workshop):
        workshop.store.remove(oid)
    assert _clean(workshop, data) == described
    assert _smudge(workshop, described) == data


def test_objects_that_serve_again_look_new_to_a_collection(workshop):
    data = checkpoints.safetensors()
    _clean(workshop, data)
    files = [workshop.store.path(oid) for oid in _oids(workshop)]
    for file in files:
        os.utime(file, (1, 1))
    _clean(workshop, data)
    assert all(file.stat().st_mtime > 1 for file in files)
