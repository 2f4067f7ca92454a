"""Plans carried out: the bytes of the merged file."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from git_theta.checkpoint.reader import Reader
from git_theta.errors import MergeError, MissingObjectError
from git_theta.formats import scan
from git_theta.merge.compute import engine
from git_theta.merge.compute.executor import execute
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.policy import policy_for
from git_theta.merge.recipe import recipe_of
from git_theta.merge.rules.request import Request
from git_theta.merge.rules.rules import Rule
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints
from tests.support.merges import torch_file


def random(shape, seed: int, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


BASE = {name: random((40, 8), 0) + n for n, name in enumerate("abcd")}


def with_(arrays=BASE, **more) -> dict[str, np.ndarray]:
    return {**arrays, **more}


# --- which bytes ----------------------------------------------------------------------------------


def test_one_side_as_it_is_gives_its_manifest(merger):
    theirs = merger.store(with_(a=random((40, 8), 1)))
    found = merger.versions(BASE, BASE, theirs)
    assert merger.execute(found).manifest is theirs


def test_the_manifest_is_what_adding_the_file_gives(merger):
    found = merger.versions(BASE, with_(a=BASE["b"]), with_(d=BASE["c"], e=np.ones(3, np.int64)))
    merged = merger.execute(found).manifest
    data = merger.file(merged)
    again = merger.store(data)
    assert again == merged
    assert scan(MemorySource(data), "m.safetensors")[1] is None


def test_a_result_that_happens_to_be_a_side(merger):
    ours = merger.store(with_(a=BASE["a"] + 1))
    found = merger.versions(with_(a=BASE["a"] + 5), ours, ours, with_(a=BASE["a"] + 5))
    assert merger.execute(found).manifest is ours
    equal = merger.versions(BASE, ours, with_(a=BASE["a"] + 2))
    assert merger.execute(equal, "*=average:weight=[1,0]").manifest is ours


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("chunk_size", [64, 1 << 20])
def test_threads_and_chunks_change_no_bit(merger, threads, chunk_size):
    sides = [with_(a=random((40, 8), seed), b=random((40, 8), seed + 9)) for seed in (1, 2)]
    expected = merger.execute(merger.versions(BASE, *sides), "*=ties:density=0.3").manifest
    data = merger.file(expected)
    other = merger.with_settings(threads=threads, chunk_size=chunk_size)
    found = other.versions(BASE, *sides)
    assert other.file(other.execute(found, "*=ties:density=0.3").manifest) == data


def test_what_a_prepass_decoded_is_merged_without_decoding_it_again(merger, monkeypatch):
    """Where it fits into the budget; no bit depends on that."""
    decoded: list[str] = []
    tensors = Reader.tensors

    def counted(reader, entries):
        decoded.extend(entry.name for entry in entries)
        return tensors(reader, entries)

    monkeypatch.setattr(Reader, "tensors", counted)
    sides = [with_(a=random((40, 8), seed), b=random((40, 8), seed + 9)) for seed in (1, 2)]
    found = merger.versions(BASE, *sides)
    kept = merger.execute(found, "*=ties:density=0.3").manifest
    assert sorted(decoded) == ["a"] * 3 + ["b"] * 3
    decoded.clear()
    monkeypatch.setattr(engine, "BUDGET", 0)
    assert merger.execute(found, "*=ties:density=0.3").manifest.hash == kept.hash
    assert len(decoded) > 6


def test_versions_that_were_cut_into_other_chunks(merger):
    """Equal bytes are unchanged, however they are stored."""
    small = merger.with_settings(chunk_size=256)
    found = small.versions(merger.store(BASE), small.store(BASE), merger.store(with_(a=BASE["d"])))
    actions = {action.name: action.why for action in small.plan(found).actions}
    assert actions == {"a": "one-sided", "b": "unchanged", "c": "unchanged", "d": "unchanged"}


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from("-abcd"), min_size=12, max_size=12))
def test_every_mixture_of_changes(merger, words):
    """Each of four tensors is absent or holds one of four values, in base, ours and theirs."""
    made = [
        {
            name: BASE[word]
            for name, word in zip("wxyz", words[4 * side :], strict=False)
            if word != "-"
        }
        for side in range(3)
    ]
    base, ours, theirs = ({**each, "k": BASE["a"]} for each in made)
    found = merger.versions(base, ours, theirs)
    plan = merger.plan(found)
    expected = {}
    for name in "kwxyz":
        values = [side.get(name) for side in (base, ours, theirs)]
        before, mine, other = (None if v is None else v.tobytes() for v in values)
        if mine == other or other == before:
            expected[name] = mine
        elif mine == before:
            expected[name] = other
    conflicts = {conflict.name for conflict in plan.conflicts}
    assert conflicts == set("kwxyz") - expected.keys()
    if not conflicts:
        merged = merger.merge(found)
        assert {n: a.tobytes() for n, a in merged.items()} == {
            n: data for n, data in expected.items() if data is not None
        }


def test_the_order_of_tensors_and_contributors_changes_no_bit(merger):
    sides = [{n: random((40, 8), 10 * s + k) for k, n in enumerate("abcd")} for s in (1, 2, 3)]
    rule = "*=dare_ties:density=0.4,seed=5"
    expected = merger.merge(merger.versions(BASE, *sides), rule)
    turned = {name: BASE[name] for name in "dbca"}
    raw = b"".join(turned[name].tobytes() for name in turned)
    offsets = iter(range(0, len(raw) + 1, 1280))
    header = {
        n: {"dtype": "F32", "shape": [40, 8], "data_offsets": [start, start + 1280]}
        for n, start in zip(turned, offsets, strict=False)
    }
    from tests.support import formats

    base = formats.safetensors(header, raw)
    merged = merger.merge(merger.versions(base, *reversed(sides)), rule)
    for name, array in expected.items():
        np.testing.assert_array_equal(merged[name], array)


# --- what a strategy gets -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0, 4), (5, 1), (3,)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_small_and_empty_tensors(merger, shape, dtype):
    sides = [
        {"w": np.asarray(random(shape, seed, dtype)), "v": BASE["a"] + seed} for seed in (0, 1, 2)
    ]
    merged = merger.merge(merger.versions(*sides), "*=average")
    mean = sides[1]["w"].astype(np.float64) / 2 + sides[2]["w"].astype(np.float64) / 2
    assert merged["w"].dtype == dtype
    assert merged["w"].shape == shape
    np.testing.assert_allclose(merged["w"], mean.astype(dtype), rtol=1e-6, atol=1e-7)


def test_nan_is_an_error_that_names_the_parameter(merger):
    ours = with_(a=np.full((40, 8), np.nan, np.float32))
    found = merger.versions(BASE, ours, with_(a=BASE["a"] + 1))
    with pytest.raises(MergeError, match="a has NaN in an input of the merge"):
        merger.execute(found, "*=average")


def test_nan_passes_where_it_is_allowed_and_the_recipe_says_so(merger):
    ours = with_(a=np.where(np.arange(320).reshape(40, 8) == 5, np.nan, BASE["a"] + 1))
    ours["a"] = ours["a"].astype(np.float32)
    found = merger.versions(BASE, ours, with_(a=BASE["a"] + 2))
    for method in ("average", "ties", "magmax", "karcher"):
        policy = policy_for("merge", [Rule("*", method)], found, Request(allow_nan=True))
        decided = make_plan(found, policy, merger.workspace)
        merged = load(merger.file(execute(decided, merger.workspace).manifest))["a"]
        assert np.isnan(merged[0, 5]), method
    assert recipe_of(decided, None)["allow_nan"] is True


def test_vectors_of_ia3_that_both_sides_added_start_from_one(merger):
    name = "q.ia3_l"
    found = merger.versions(BASE, with_(**{name: BASE["a"]}), with_(**{name: BASE["b"]}))
    merged = merger.merge(found, "*=task_arithmetic:lambda=0.5")
    np.testing.assert_allclose(merged[name], (BASE["a"] + BASE["b"]) / 2, atol=1e-6)


def test_statistics_are_read_beside_the_checkpoint(merger):
    sides = [with_(a=BASE["a"] + shift) for shift in (1, 3)]
    fisher = [merger.store({"a": np.full((40, 8), weight, np.float32)}) for weight in (3, 1)]
    found = merger.versions(BASE, *sides, statistics=[{"fisher": each} for each in fisher])
    merged = merger.merge(found, "*=fisher:normalize=false")
    np.testing.assert_allclose(merged["a"], BASE["a"] + 1.5, rtol=1e-5)
    (action,) = merger.plan(found, "*=fisher").merges
    # The result, ours, theirs, the ancestor's and two statistics are in memory together.
    assert action.weight == 6 * BASE["a"].nbytes
    lacking = merger.versions(BASE, *sides, statistics=[{"fisher": fisher[0]}, {}])
    with pytest.raises(MergeError, match="fisher needs the fisher statistics of dev"):
        merger.plan(lacking, "*=fisher")


def test_prepasses_of_the_whole_model_see_what_one_rule_merges(merger):
    """TIES keeps a share over all tensors that its rule is for: here all of b, nothing of a."""
    ours = with_(a=BASE["a"] + np.float32(0.001), b=BASE["b"] + 8)
    theirs = with_(a=BASE["a"] + np.float32(0.002), b=BASE["b"] + 8.5)
    found = merger.versions(BASE, ours, theirs)
    merged = merger.merge(found, "*=ties:density=0.25")
    np.testing.assert_array_equal(merged["a"], BASE["a"])
    np.testing.assert_allclose(merged["b"], BASE["b"] + 8.25, rtol=1e-5)
    apart = merger.merge(found, "a=ties:density=1", "*=ties:density=1")
    np.testing.assert_allclose(apart["a"], BASE["a"] + np.float32(0.0015), rtol=1e-4)


def test_all_parameters_on_request(merger):
    found = merger.versions(BASE, BASE, with_(a=BASE["a"] + 4))
    merged = merger.merge(found, "*=task_arithmetic:lambda=0.25", include_one_sided=True)
    np.testing.assert_allclose(merged["a"], BASE["a"] + 1, rtol=1e-5)
    np.testing.assert_array_equal(merged["b"], BASE["b"])


def test_an_object_that_is_nowhere(merger):
    found = merger.versions(BASE, with_(a=BASE["b"] + 1), with_(b=BASE["a"] + 1))
    oids = {
        ref.oid
        for entry in found.contributors[1].manifest.tensors
        for c in entry.chunks
        for ref in c.chain
    }
    for oid in oids:
        merger.workspace.store.path(oid).unlink()
    with pytest.raises(MissingObjectError):
        merger.execute(found)


# --- torch files ----------------------------------------------------------------------------------


def state(epoch: int = 1, **shifts: float) -> dict[str, object]:
    tensors = {
        name: torch.from_numpy(BASE[name] + np.float32(shifts.get(name, 0))) for name in "abcd"
    }
    tensors["tied"] = tensors["a"]
    tensors["part"] = tensors["b"][3:5]
    tensors["turned"] = torch.from_numpy(BASE["c"] + np.float32(shifts.get("c", 0))).t()
    return {"model": tensors, "epoch": epoch, "empty": torch.zeros(0)}


def torch_versions(merger, *values):
    stored = [merger.store(torch_file(value), "m.pt") for value in values]
    return merger.versions(*stored, path="m.pt")


def loaded(merger, manifest):
    data = merger.file(manifest)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
    return torch.load(io.BytesIO(data))


def test_a_torch_file_with_views_and_ties(merger):
    found = torch_versions(merger, state(), state(a=1, b=1, c=1), state(a=3, d=2, epoch=2))
    done = merger.execute(found, "*=average")
    merged = loaded(merger, done.manifest)
    model = merged["model"]
    assert merged["epoch"] == 2
    assert done.notes == ()
    np.testing.assert_allclose(model["a"].numpy(), BASE["a"] + 2, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model["b"].numpy(), BASE["b"] + 1)
    np.testing.assert_array_equal(model["turned"].numpy(), (BASE["c"] + 1).T)
    np.testing.assert_array_equal(model["d"].numpy(), BASE["d"] + 2)
    assert model["tied"].data_ptr() == model["a"].data_ptr()
    assert model["part"].storage_offset() == 24


def test_turned_and_partial_storages_are_merged(merger):
    def value(shift: float) -> dict[str, object]:
        whole = torch.arange(12.0) + shift
        return {"turned": (torch.arange(6.0).view(2, 3) * (1 + shift)).t(), "part": whole[2:5]}

    found = torch_versions(merger, value(0), value(1), value(3))
    merged = loaded(merger, merger.execute(found, "*=average").manifest)
    assert torch.equal(merged["turned"], (torch.arange(6.0).view(2, 3) * 3).t())
    assert torch.equal(merged["part"], torch.arange(12.0)[2:5] + 2)


def test_what_is_beside_the_tensors_and_changed_on_both_sides(merger):
    found = torch_versions(merger, state(), state(a=1, epoch=2), state(b=1, epoch=3))
    done = merger.execute(found)
    assert loaded(merger, done.manifest)["epoch"] == 2
    (note,) = done.notes
    assert note == "what the file says beside its tensors differs on the sides; it is as in main"


def test_a_structure_that_no_torch_file_has(merger):
    ours, theirs = state(a=1), state(b=1)
    ours["model"]["new"] = torch.ones(2)
    theirs["model"]["other"] = torch.ones(3)
    done = merger.execute(torch_versions(merger, state(), ours, theirs))
    merged = loaded(merger, done.manifest)
    assert not done.notes
    assert merged["epoch"] == state()["epoch"]
    found = {name: tensor.tolist() for name, tensor in merged["model"].items()}
    assert found["new"] == [1, 1]
    assert found["other"] == [1, 1, 1]
    np.testing.assert_array_equal(merged["model"]["a"].numpy(), BASE["a"] + 1)
    np.testing.assert_array_equal(merged["model"]["b"].numpy(), BASE["b"] + 1)
    assert set(found) == {*state()["model"], "new", "other"}


def test_a_tied_embedding_that_one_side_resizes(merger):
    def model(rows: int, **more: object) -> dict[str, object]:
        shared = torch.arange(4.0 * rows).reshape(rows, 4)
        return {"model": {"embed": shared, "head": shared[:], **more}, "epoch": 1}

    ours = model(3, new=torch.ones(2))
    done = merger.execute(torch_versions(merger, model(3), ours, model(5)))
    merged = loaded(merger, done.manifest)["model"]
    assert set(merged) == {"embed", "head", "new"}
    assert torch.equal(merged["embed"], model(5)["model"]["embed"])
    assert merged["embed"].data_ptr() == merged["head"].data_ptr()


def test_a_tensor_that_one_side_alone_ties(merger):
    ours, theirs = state(a=1), state(b=1)
    ours["model"]["new"] = torch.ones(2)
    theirs["model"]["other"] = theirs["model"]["b"]
    with pytest.raises(MergeError, match=r"model\.other is tied to another tensor") as error:
        merger.execute(torch_versions(merger, state(), ours, theirs))
    assert error.value.hint == "tie or untie it on all sides"


def test_a_structure_that_theirs_has(merger):
    theirs = state(b=1)
    theirs["model"]["new"] = torch.ones(2)
    found = torch_versions(merger, state(), state(a=1), theirs)
    merged = loaded(merger, merger.execute(found).manifest)["model"]
    assert torch.equal(merged["new"], torch.ones(2))
    np.testing.assert_array_equal(merged["a"].numpy(), BASE["a"] + 1)


def test_a_tensor_less_on_one_side_and_another_epoch_on_the_other(merger):
    ours = state(a=1)
    del ours["model"]["d"]
    done = merger.execute(torch_versions(merger, state(), ours, state(b=1, epoch=7)))
    merged = loaded(merger, done.manifest)
    assert "d" not in merged["model"]
    assert merged["epoch"] == 7
    assert not done.notes


def test_the_structure_counts_before_what_is_beside_it(merger):
    """Theirs alone has another epoch, and loses it: only ours has the merged structure."""

    def listed(epoch: int, count: int) -> dict[str, object]:
        return {"model": [torch.full((2,), 1.0 * n) for n in range(count)], "epoch": epoch}

    done = merger.execute(torch_versions(merger, listed(1, 3), listed(1, 2), listed(7, 3)))
    merged = loaded(merger, done.manifest)
    assert len(merged["model"]) == 2
    assert merged["epoch"] == 1
    assert done.notes


def test_checksums_that_come_before_the_tensors(merger):
    """A zip file that some other program wrote, with checksums in the local headers."""

    def rewritten(value: object) -> bytes:
        buffer = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(torch_file(value))) as old,
            zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new,
        ):
            for info in old.infolist():
                new.writestr(info.filename, old.read(info))
        return buffer.getvalue()

    stored = [merger.store(rewritten(state(**s)), "m.pt") for s in ({}, {"a": 1}, {"b": 1})]
    assert stored[0].format == "torch"
    done = merger.execute(merger.versions(*stored, path="m.pt"))
    merged = merger.file(done.manifest)
    with zipfile.ZipFile(io.BytesIO(merged)) as archive:
        assert archive.testzip() is None
    assert loaded(merger, done.manifest)["model"].keys() == state()["model"].keys()


def test_arrays_of_numpy_are_merged_and_their_checksums_renewed(merger):
    """Those of an ``.npz`` file are of each array's header too, and stand before it."""
    files = [checkpoints.npz(with_(**s)) for s in ({}, {"a": BASE["a"] + 1}, {"b": BASE["b"] + 1})]
    stored = [merger.store(data, "m.npz") for data in files]
    assert stored[0].format == "numpy"
    done = merger.execute(merger.versions(*stored, path="m.npz"))
    merged = merger.file(done.manifest)
    assert merged == checkpoints.npz(with_(a=BASE["a"] + 1, b=BASE["b"] + 1))
    one_sided = merger.versions(stored[0], stored[0], stored[2], path="m.npz")
    assert merger.execute(one_sided).manifest is stored[2]


def test_arrays_of_numpy_are_added_removed_and_reshaped(merger):
    """The file is the one that NumPy would write, and the same when it is merged or added again."""
    odd = np.array([{}, None], dtype=object)
    longer, turned = random((50, 8), 5), np.asfortranarray(random((3, 4), 6))
    ours = with_(a=BASE["a"] + 1, new=np.ones(3, np.int64), b=longer)
    theirs = with_(a=BASE["a"] + 3, turned=turned, empty=np.zeros((0, 4), "f2"))
    del theirs["d"]
    files = [checkpoints.npz({**each, "odd": odd}) for each in (BASE, ours, theirs)]
    versions = merger.versions(*(merger.store(data, "m.npz") for data in files), path="m.npz")
    done = merger.execute(versions, "*=average")
    merged = merger.file(done.manifest)
    assert merger.store(merged, "m.npz") == done.manifest
    assert merger.execute(versions, "*=average").manifest == done.manifest
    expected = {**ours, "a": BASE["a"] + 2, "turned": turned, "empty": theirs["empty"]}
    del expected["d"]
    with np.load(io.BytesIO(merged), allow_pickle=False) as loaded_arrays:
        assert set(loaded_arrays) == {*expected, "odd"}
        again = {name: loaded_arrays[name] for name in loaded_arrays if name != "odd"}
    for name, array in expected.items():
        np.testing.assert_allclose(again[name], array, rtol=1e-5, atol=1e-5)
        assert (again[name].dtype, again[name].shape) == (array.dtype, array.shape)
    if checkpoints.ZIP64_IS_SOUND:
        assert merged == checkpoints.npz({**again, "odd": odd})


def test_an_npy_file_that_one_side_made_longer(merger):
    array = random((40, 8), 0)
    longer = np.vstack([array, array])
    base, ours = (merger.store(checkpoints.npy(each), "m.npy") for each in (array, longer))
    theirs = merger.store(checkpoints.npy(array) + b"note", "m.npy")
    done = merger.execute(merger.versions(base, ours, theirs, path="m.npy"))
    assert merger.file(done.manifest) == checkpoints.npy(longer) + b"note"


def packed(*without: str, **changes: float) -> bytes:
    arrays = {
        name: random((100, 80), 0) + changes.get(name, 0) for name in "abc" if name not in without
    }
    arrays["bias"] = np.arange(4) + changes.get("bias", 0)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def test_deflated_arrays_are_taken_from_both_sides(merger):
    files = (packed("c"), packed("c", a=1), packed(b=1, bias=2))
    stored = [merger.store(each, "m.npz") for each in files]
    done = merger.execute(merger.versions(*stored, path="m.npz"))
    expected = np.load(io.BytesIO(packed(a=1, b=1, bias=2)))
    data = merger.file(done.manifest)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
    merged = np.load(io.BytesIO(data), allow_pickle=False)
    assert set(merged) == set(expected)
    assert all((merged[name] == expected[name]).all() for name in expected)
    assert not done.notes


@checkpoints.AS_NUMPY_WRITES
def test_deflated_arrays_of_the_same_names_give_what_numpy_writes(merger):
    stored = [merger.store(each, "m.npz") for each in (packed(), packed(a=1), packed(b=1))]
    done = merger.execute(merger.versions(*stored, path="m.npz"))
    assert merger.file(done.manifest) == packed(a=1, b=1)


def test_deflated_arrays_of_formats_that_have_none_are_not_merged(merger):
    # Of the same lengths, nothing but the dtype says that they are not plain.
    one = {"a": random((40, 8), 1)}
    sides = [merger.store(with_(BASE, **each)) for each in ({}, one, {"b": one["a"]})]
    deflated = [_as_deflated(side) for side in sides]
    with pytest.raises(MergeError, match="its arrays are compressed"):
        merger.execute(merger.versions(*deflated))


def _as_deflated(manifest):
    tensors = tuple(replace(entry, dtype="DEFLATED_F32") for entry in manifest.tensors)
    return replace(manifest, tensors=tensors)
