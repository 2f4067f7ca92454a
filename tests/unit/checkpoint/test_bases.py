from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes  # noqa: F401 - numpy knows bfloat16 then
import numpy as np
import pytest

from git_theta.checkpoint import chunk_decoder
from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.parents import Parents
from git_theta.checkpoint.smudge import smudge
from git_theta.core.settings import Settings
from git_theta.store import Index, ObjectStore
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints
from tests.support.manifests import entry_named

NAME = "layer.0.weight"


@pytest.fixture
def storage(tmp_path: Path):
    with Index(tmp_path) as index:
        yield StorageContext(ObjectStore(tmp_path), index, Settings())


def _arrays(seed: int = 0) -> dict[str, np.ndarray]:
    return checkpoints.tensors(seed, rows=2000, layers=1)


def _moved(arrays, scale: float, seed: int):
    return checkpoints.finetuned(arrays, scale=scale, seed=seed)


def _clean(storage: StorageContext, arrays, *parents):
    data = checkpoints.safetensors(arrays)
    described = clean(MemorySource(data), "m.safetensors", storage, parents).manifest
    assert b"".join(smudge(described, storage)) == data
    return described


def _depth(described) -> int:
    return max(len(chunk.chain) for chunk in entry_named(described, NAME).chunks)


def test_the_bottom_of_a_chain_is_the_base_where_it_is_as_close(storage):
    base = _arrays()
    first = _clean(storage, base)
    second = _clean(storage, _moved(base, 1e-5, 1), first)
    sibling = _clean(storage, _moved(base, 1e-5, 2), second)
    assert (_depth(first), _depth(second), _depth(sibling)) == (1, 2, 2)


def test_the_top_of_a_chain_is_the_base_where_it_is_closer(storage):
    base = _arrays()
    first = _clean(storage, base)
    far = _moved(base, 1e-3, 1)
    second = _clean(storage, far, first)
    near = dict(far) | {NAME: far[NAME].copy()}
    near[NAME][5, 7] += 1
    assert _depth(_clean(storage, near, second)) == 3


def test_other_weights_are_stored_in_full(storage):
    first = _clean(storage, _arrays())
    assert _depth(_clean(storage, _arrays(seed=9), first)) == 1


def test_appended_rows_need_the_rows_before_them_no_more_than_once(tmp_path):
    with Index(tmp_path) as index:
        storage = StorageContext(ObjectStore(tmp_path), index, Settings(chunk_size=64 << 10))
        base = _arrays()
        first = _clean(storage, base)
        more = np.random.default_rng(3).standard_normal((30, 32)).astype(np.float32)
        grown = _clean(storage, base | {NAME: np.concatenate([base[NAME], more])}, first)
        old, new = entry_named(first, NAME).chunks, entry_named(grown, NAME).chunks
        assert new[: len(old) - 1] == old[:-1]
        fresh = sum(chunk.chain[0].length for chunk in new if chunk not in old)
        assert fresh < 1.2 * more.nbytes
        trimmed = _clean(storage, base | {NAME: base[NAME][:-40]}, first)
        fresh = [chunk for chunk in entry_named(trimmed, NAME).chunks if chunk not in old]
        assert sum(chunk.chain[0].length for chunk in fresh) < 400


@pytest.mark.parametrize(("settings", "most"), [({"max_depth": 3}, 3), ({"max_cost": 1}, 2)])
def test_chains_are_bounded_in_depth_and_in_bytes(tmp_path, settings, most):
    with Index(tmp_path) as index:
        storage = StorageContext(ObjectStore(tmp_path), index, Settings(**settings))
        arrays, described, depths = _arrays(), None, []
        for step in range(7):
            described = _clean(storage, arrays, *([described] if described else []))
            depths.append(_depth(described))
            # Ever further from the base, so that each step is closest to the one before.
            arrays = _moved(arrays, 1e-2, step)
        assert max(depths) == most


@pytest.mark.parametrize("lost", [False, True])
def test_a_base_that_is_lost_or_damaged_is_done_without(tmp_path, lost):
    with Index(tmp_path) as index:
        # Every frame an object of its own: nothing but the one tensor is damaged.
        storage = StorageContext(ObjectStore(tmp_path), index, Settings(pack_limit=1))
        base = _arrays()
        first = _clean(storage, base)
        oid = entry_named(first, NAME).chunks[0].chain[0].oid
        storage.store.path(oid).chmod(0o644)
        storage.store.path(oid).write_bytes(bytes(storage.store.size(oid)))
        if lost:
            storage.store.path(oid).unlink()
        assert _depth(_clean(storage, _moved(base, 1e-5, 1), first)) == 1


def test_parents_are_not_locked_while_one_is_decoded(storage, monkeypatch):
    """Each worker looks up its own tensor while another one decodes a base."""
    first = _clean(storage, _arrays())
    parents = Parents([first])
    assert parents.nearest() is not None
    free = []

    def decode_bases(store, chain):
        free.append(parents._lock.acquire(blocking=False))
        parents._lock.release()
        return real_decode(store, chain)

    real_decode = chunk_decoder.decode_bases
    monkeypatch.setattr(chunk_decoder, "decode_bases", decode_bases)
    monkeypatch.setattr("git_theta.checkpoint.clean.Parents", lambda given: parents)
    data = checkpoints.safetensors(_moved(_arrays(), 1e-5, 1), note="another header")
    clean(MemorySource(data), "m.safetensors", storage, [first])
    assert free, "a tensor has a base"
    assert all(free)


def test_small_tensors_cost_neither_a_base_nor_a_query_each(storage, monkeypatch):
    def small(seed):
        rng = np.random.default_rng(seed)
        return {f"bias.{n}": rng.standard_normal(280).astype("f4") for n in range(100)}

    first = _clean(storage, small(0))
    queries = []
    find_many = storage.index.find_many
    monkeypatch.setattr(
        storage.index, "find_many", lambda keys: queries.append(1) or find_many(keys)
    )
    decoded = []
    decode = chunk_decoder.decode_bases
    monkeypatch.setattr(
        chunk_decoder, "decode_bases", lambda *given: decoded.append(1) or decode(*given)
    )
    second = _clean(storage, small(1), first)
    assert len(decoded) <= 1, "the skeleton's"
    assert len(queries) <= 3
    assert {len(chunk.chain) for entry in second.tensors for chunk in entry.chunks} == {1}


def _renamed(arrays):
    return {f"model.{name}": array for name, array in arrays.items()}


def _stored(storage: StorageContext) -> int:
    return sum(storage.store.size(oid) for oid in storage.store.oids())


def test_a_tensor_of_another_name_is_the_base_in_any_file_and_branch(storage):
    base = _arrays()
    first = _clean(storage, base)
    before = _stored(storage)
    alone = _clean(storage, _moved(base, 1e-2, 1), first)
    between = _stored(storage)
    # No parent: neither HEAD nor the index of this branch has it.
    found = _clean(storage, _renamed(_moved(base, 1e-2, 2)))
    entry = entry_named(found, f"model.{NAME}")
    assert entry.chunks[0].chain[1:] == entry_named(alone, NAME).chunks[0].chain[1:]
    assert _stored(storage) - between < 1.05 * (between - before)


def test_a_tensor_of_the_same_name_and_other_weights_is_not_the_base(storage):
    mine, other = _arrays(), _arrays(seed=9)
    first, _ = _clean(storage, mine), _clean(storage, other)
    found = _clean(storage, _moved(other, 1e-3, 1), first)
    assert _depth(found) == 2


def test_a_checked_out_tensor_is_a_base_where_the_index_was_empty(tmp_path):
    base = _arrays()
    with Index(tmp_path / "one") as index:
        storage = StorageContext(ObjectStore(tmp_path / "one"), index, Settings())
        first = _clean(storage, base)
    shutil.copytree(tmp_path / "one" / "objects", tmp_path / "clone" / "objects")
    with Index(tmp_path / "clone") as index:
        storage = StorageContext(ObjectStore(tmp_path / "clone"), index, Settings())
        tuned = _renamed(_moved(base, 1e-3, 1))
        assert b"".join(smudge(first, storage)) == checkpoints.safetensors(base)
        found = _clean(storage, tuned)
        assert len(entry_named(found, f"model.{NAME}").chunks[0].chain) == 2


def test_the_next_best_is_the_base_where_the_last_version_was_collected(storage):
    base = _arrays()
    first = _clean(storage, base)
    second = _clean(storage, _moved(base, 1e-2, 1), first)
    gone = second.objects().keys() - first.objects().keys()
    for oid in gone:
        storage.store.path(oid).unlink()
    storage.index.forget(gone)
    found = _clean(storage, _renamed(_moved(base, 1e-2, 2)))
    chain = entry_named(found, f"model.{NAME}").chunks[0].chain
    assert chain[1:] == entry_named(first, NAME).chunks[0].chain


def test_what_only_looks_alike_on_the_sample_is_not_the_base(storage, monkeypatch):
    """A false lead costs a decode, and nothing is worse for it."""
    first = _clean(storage, _arrays())
    leads = [entry_named(first, NAME).chunks[0].hash]
    monkeypatch.setattr(storage.index, "similar", lambda sketch, most: leads)
    other = _clean(storage, _renamed(_arrays(seed=9)))
    assert len(entry_named(other, f"model.{NAME}").chunks[0].chain) == 1


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_another_precision_costs_next_to_nothing_and_so_does_the_way_back(tmp_path, name):
    with Index(tmp_path) as index:
        # Several chunks, each of which has the same elements in both precisions.
        storage = StorageContext(ObjectStore(tmp_path), index, Settings(chunk_size=128 << 10))
        wide = _arrays()
        _clean(storage, wide)
        narrow = {key: array.astype(np.dtype(name)) for key, array in wide.items()}
        for arrays in (narrow, {key: array.astype("f4") for key, array in narrow.items()}):
            before = _stored(storage)
            found = _clean(storage, _renamed(arrays))
            assert len(entry_named(found, f"model.{NAME}").chunks) == 2
            size = sum(array.nbytes for array in arrays.values())
            assert _stored(storage) - before <= 0.02 * size


def _turned(arrays):
    """As another framework keeps them: the kernel of a layer is the transposed weight."""
    return {name: np.ascontiguousarray(array.T) for name, array in arrays.items()}


def _grown(storage: StorageContext, arrays, *parents) -> int:
    before = _stored(storage)
    _clean(storage, arrays, *parents)
    return _stored(storage) - before


def test_a_transposed_tensor_is_the_base_whatever_it_is_called(storage):
    base = _arrays()
    first = _clean(storage, base)
    size = sum(array.nbytes for array in base.values())
    assert _grown(storage, _turned(base)) < 0.01 * size, "the same weights"
    alone = _grown(storage, _moved(base, 1e-2, 1), first)
    assert _grown(storage, _renamed(_turned(_moved(base, 1e-2, 2)))) < 1.05 * alone
    bf16 = np.dtype("bfloat16")
    cast = {name: array.astype(bf16) for name, array in _turned(base).items()}
    assert _grown(storage, cast) < 0.02 * size


@pytest.mark.parametrize("shape", [(256, 256), (128, 512)])
def test_a_transposed_lineage_stays_close_to_its_base(storage, shape):
    """Fine-tunes of a transposed copy are differences to the first matrix, in chains of two."""
    base = {NAME: np.random.default_rng(0).standard_normal(shape).astype("f4")}
    _clean(storage, base)
    kept, described = _turned(base), None
    for step in range(3):
        kept = {name: array + np.float32(1e-6) * (step + 1) for name, array in kept.items()}
        described = _clean(storage, kept, *([described] if described else []))
        assert _depth(described) == 2


def test_a_chunk_that_is_a_part_of_a_matrix_is_not_transposed(tmp_path):
    with Index(tmp_path) as index:
        storage = StorageContext(ObjectStore(tmp_path), index, Settings(chunk_size=128 << 10))
        _clean(storage, _arrays())
        found = _clean(storage, _turned(_arrays()))
        assert {len(chunk.chain) for chunk in entry_named(found, NAME).chunks} == {1}
