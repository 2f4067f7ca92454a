"""Strategies that are mergekit's by definition, against recorded runs of mergekit 0.1.5."""

from __future__ import annotations

import pytest
import torch

from tests.support.mergekit_runs import configuration, tensors
from tests.support.merging import merge

RUNS = {
    "nearswap": ("nearswap:t=0.01", ("a", "b")),
    "nearswap_tiny": ("nearswap:t=1e-7", ("a", "b")),
    "arcee": ("arcee_fusion", ("a", "b")),
    "passscale": ("passthrough:scale=0.5", ("a",)),
}


@pytest.mark.parametrize("run", RUNS)
def test_the_bits_are_those_of_a_run_of_mergekit(run):
    rule, models = RUNS[run]
    assert rule.startswith(configuration(run)["merge_method"])
    sides, found = [tensors(model) for model in models], tensors(run)
    assert len(found) == 11
    for name, expected in found.items():
        assert torch.equal(merge(rule, [side[name] for side in sides]), expected), name
