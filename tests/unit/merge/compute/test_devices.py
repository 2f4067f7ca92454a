"""Work is spread over devices, and the result does not depend on how many there are."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from git_theta.core import registry
from git_theta.merge.kernels import slices
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.rules.registry import strategy_named
from tests.support import checkpoints
from tests.support.merges import Merger
from tests.support.merging import merge_model

# Torch has one CPU; the numbers tell apart who got a slice.
DEVICES = tuple(torch.device("cpu", number) for number in range(3))
NAMES = [
    name
    for name in registry.names("strategies")
    if strategy_named(name).kind == "tensors" and strategy_named(name).slicing != "tensor"
]


@pytest.fixture
def lanes(monkeypatch):
    """The number of slices of each device."""
    found: Counter[torch.device | None] = Counter()

    @contextmanager
    def noted(device):
        found[device] += 1
        yield

    monkeypatch.setattr(slices, "lane", noted)
    return found


def model(name: str) -> list[Inputs]:
    generator = torch.Generator().manual_seed(5)
    made = []
    for place in range(2):
        base, *sides = (torch.randn(600, 500, generator=generator) for _ in range(3))
        statistics = [side.square() for side in sides] if strategy_named(name).statistic else []
        made.append(Inputs.of(f"l.{place}", sides, base, statistics))
    return made


@pytest.mark.parametrize("name", NAMES)
def test_every_device_gets_slices_and_no_bit_changes(name, lanes):
    inputs = model(name)
    expected = merge_model(name, inputs)
    if name == "take":
        return
    lanes.clear()
    spread = [
        replace(each, device=DEVICES[0], others=DEVICES[1:], slice_elements=1 << 16, threads=3)
        for each in inputs
    ]
    made = merge_model(name, spread)
    assert set(lanes) == set(DEVICES)
    assert max(lanes.values()) - min(lanes.values()) <= 6  # 5 slices a tensor and pass
    for key, tensor in expected.items():
        assert torch.equal(made[key].view(torch.int32), tensor.view(torch.int32))


def test_a_merge_on_several_devices_says_so_and_is_the_same(opened, tmp_path):
    base = checkpoints.tensors(rows=2100, layers=1)
    sides = [checkpoints.finetuned(base, 0.1, seed) for seed in (1, 2)]
    one = Merger(opened, tmp_path / "one")
    two = one.with_settings(device="cpu,cpu")
    versions = one.versions(base, *sides)
    first, second = (merger.execute(versions, "*=ties") for merger in (one, two))
    assert (first.device, second.device) == ("cpu", "cpu,cpu")
    assert first.manifest.hash == second.manifest.hash
