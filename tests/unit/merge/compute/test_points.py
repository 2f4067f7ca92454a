"""Points of a sweep have the bits of ordinary merges, however little is computed for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from git_theta.checkpoint import chunk_decoder
from git_theta.core import registry
from git_theta.errors import MergeError
from git_theta.merge.compute import points
from git_theta.merge.compute.points import PointFile, Updates
from git_theta.merge.compute.tensor import merge_tensor, scaled, task_update
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.rules.registry import strategy_named
from tests.support import checkpoints
from tests.support.merging import MemoryModel, method
from tests.support.merging import run_prepass as prepass_of

SCALED = [name for name in registry.names("strategies") if strategy_named(name).scaled_by]
BASE = checkpoints.tensors(rows=6, layers=1)
SIDES = [checkpoints.finetuned(BASE, 0.5, seed) for seed in (1, 2)]


def test_which_strategies_are_scaled():
    assert {"task_arithmetic", "ties", "dare_ties", "della", "breadcrumbs", "magmax"} <= {*SCALED}
    assert "average" not in SCALED


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_base_and_scaled_update_have_the_bits_of_the_merge(name, dtype):
    generator = torch.Generator().manual_seed(3)
    *sides, base = (torch.randn(5, 9, generator=generator).to(dtype) for _ in range(4))
    base[0, :4] = torch.tensor([0.0, -0.0, -0.0, 0.0])
    for side in sides:
        side[0, :4] = torch.tensor([0.0, -0.0, 0.0, -0.0])
    inputs = Inputs.of("w", sides, base)
    for factor in (0.3, 1.0, -0.7):
        chosen = method(f"{name}:lambda={factor}", 3)
        found = prepass_of(chosen, MemoryModel([inputs])).get("w")
        made = scaled("w", base, task_update(chosen, inputs, found), factor, 1)
        expected = merge_tensor(chosen, inputs, found)
        assert torch.equal(made.view(torch.uint8), expected.view(torch.uint8))


def test_a_result_that_the_dtype_cannot_hold():
    base, update = torch.full((3,), 6e4).half(), torch.full((3,), 1e4)
    with pytest.raises(MergeError, match="w cannot hold the result"):
        scaled("w", base, update, 1.0, 1)


@pytest.fixture
def versions(merger):
    return merger.versions(BASE, *SIDES)


def expected(merger, versions, rule: str) -> bytes:
    return merger.file(merger.execute(versions, rule).manifest)


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "average:weight[main]="])
def test_the_file_of_each_point_is_that_of_an_ordinary_merge(merger, versions, tmp_path, name):
    file = PointFile(merger.workspace, tmp_path / "out" / "m.safetensors", tmp_path)
    key = name if name.endswith("=") else f"{name}:lambda="
    for value in (0.5, 1.5, 0.25):
        rule = f"*={key}{value}"
        file.write(merger.plan(versions, rule))
        made = (tmp_path / "out" / "m.safetensors").read_bytes()
        assert made == expected(merger, versions, rule)


def test_further_points_decode_nothing(merger, versions, tmp_path, monkeypatch):
    file = PointFile(merger.workspace, tmp_path / "m.safetensors", tmp_path)
    file.write(merger.plan(versions, "*=ties:lambda=1"))
    names = {entry.name for entry in versions.base.tensors}
    read, before = [], chunk_decoder.decode_each

    def noted(store, wanted):
        read.extend(wanted)
        return before(store, wanted)

    monkeypatch.setattr(chunk_decoder, "decode_each", noted)
    monkeypatch.setattr("git_theta.merge.compute.points.task_update", None, raising=False)
    file.write(merger.plan(versions, "*=ties:lambda=2"))
    tensors = {
        chunk.hash
        for each in versions.contributors
        for e in each.manifest.tensors
        for chunk in e.chunks
    }
    assert names
    assert not {chunk.hash for chunk in read} & tensors
    assert (tmp_path / "m.safetensors").read_bytes() == expected(
        merger, versions, "*=ties:lambda=2"
    )


def test_what_is_too_much_for_memory_is_in_files(merger, versions, tmp_path, monkeypatch):
    monkeypatch.setattr(points, "BUDGET", 0)
    file = PointFile(merger.workspace, tmp_path / "m.safetensors", tmp_path)
    for value in (1, 2):
        file.write(merger.plan(versions, f"*=ties:lambda={value}"))
    assert (tmp_path / "m.safetensors").read_bytes() == expected(
        merger, versions, "*=ties:lambda=2"
    )
    assert [each.name for each in tmp_path.glob("tmp*")] == []  # mapped, without a name


def test_checksums_of_a_torch_file_are_renewed(merger, tmp_path):
    pytest.importorskip("torch")
    sides = [checkpoints.torch_zip(tensors) for tensors in (BASE, *SIDES)]
    stored = [merger.store(side, "m.pt") for side in sides]
    found = merger.versions(stored[0], *stored[1:], path="m.pt")
    file = PointFile(merger.workspace, tmp_path / "m.pt", tmp_path)
    for value in (1, 2):
        file.write(merger.plan(found, f"*=task_arithmetic:lambda={value}"))
    merged = torch.load(tmp_path / "m.pt", weights_only=True)["layer.0.bias"].numpy()
    wanted = BASE["layer.0.bias"] + 2 * sum(s["layer.0.bias"] - BASE["layer.0.bias"] for s in SIDES)
    np.testing.assert_allclose(merged, wanted, rtol=1e-5)
    assert (tmp_path / "m.pt").read_bytes() == expected(merger, found, "*=task_arithmetic:lambda=2")


def test_updates_of_other_values_are_forgotten(merger, versions, tmp_path):
    one, other = (
        merger.plan(versions, f"*=ties:density={density}").merges[0] for density in (0.2, 0.5)
    )
    again = merger.plan(versions, "*=ties:density=0.2,lambda=7").merges[0]
    updates = Updates(tmp_path)
    updates.put(one, torch.zeros(2), torch.ones(2))
    assert updates.get(other) is None
    assert updates.get(again) is not None
