"""Merges whose hyperparameters change over the layers, and in another dtype than the branches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from git_theta.errors import MergeError
from git_theta.merge.planning.planner import make_plan
from git_theta.merge.planning.versions import Versions
from git_theta.merge.recipe import check_recipe, policy_of, recipe_of
from tests.support.mergekit_runs import tensors

RUNS = {
    "slerpgrad": ["*=slerp:t=[0,0.5,1]"],
    "linear_grad": ["*=average:weight.main=[0.2,0.9],weight.dev=0.5"],
    "ties_grad": ["*=ties:scope=tensor,density=0.5,weight.main=[1,0.25,0.5],weight.dev=0.5"],
}


def versions(merger, base: str, *sides: str) -> Versions:
    """Versions of the recorded models."""
    return merger.versions(*(save(tensors(name)) for name in (base, *sides)))


@pytest.mark.parametrize("run", RUNS)
def test_a_gradient_gives_what_a_run_of_mergekit_gave(merger, run):
    """The models have four layers; what is in none has the first number."""
    out = "BF16" if run == "ties_grad" else None
    found = versions(merger, "base", "a", "b")
    plan_options = {"out_dtype": out, "include_one_sided": True}
    done = merger.execute(found, *RUNS[run], **plan_options)
    merged, expected = load(merger.file(done.manifest)), tensors(run)
    assert merged.keys() == expected.keys()
    for name, tensor in merged.items():
        assert tensor.dtype == expected[name].dtype == (torch.bfloat16 if out else torch.float32)
        # bf16 has 8 bits: a float32 rounding may fall to the other side of one.
        tolerance = 2**-8 if out else 1e-6
        torch.testing.assert_close(tensor, expected[name], rtol=tolerance, atol=1e-6)


def test_a_range_of_layers_has_a_rule_of_its_own(merger):
    rules = ["*.layers.1-2.*=take:side=theirs", "*=take:side=ours"]
    done = merger.execute(versions(merger, "base", "a", "b"), *rules)
    merged, ours, theirs = load(merger.file(done.manifest)), tensors("a"), tensors("b")
    for name, tensor in merged.items():
        side = theirs if ".layers.1." in name or ".layers.2." in name else ours
        assert torch.equal(tensor, side[name]), name


def test_a_recipe_with_a_gradient_and_a_dtype_gives_the_same_plan(merger):
    found = versions(merger, "base", "a", "b")
    plan = merger.plan(found, RUNS["slerpgrad"][0], out_dtype="F16")
    recipe = check_recipe(recipe_of(plan, "cpu"))
    assert recipe["out_dtype"] == "F16"
    again = make_plan(found, policy_of(recipe, found), merger.workspace)
    assert recipe_of(again, "cpu") == recipe
    assert [each.method.values for each in again.merges] == [
        each.method.values for each in plan.merges
    ]


@pytest.mark.parametrize("out", ["F16", "BF16", "F64"])
def test_floats_of_the_result_are_cast_and_integers_are_not(merger, out):
    """From the float32 result at once: not rounded to the branches' dtype first."""
    rng = np.random.default_rng(1)
    base, one, two = (
        {
            "w": torch.from_numpy(rng.standard_normal((4, 4))).bfloat16(),
            "b": torch.from_numpy(rng.standard_normal(3)).float(),
            "n": torch.tensor([3]),
        }
        for _ in range(3)
    )
    two |= {"b": base["b"], "n": base["n"]}
    one["n"] = base["n"]
    found = merger.versions(*map(save, (base, one, two)))
    merged = load(merger.file(merger.execute(found, "*=average", out_dtype=out).manifest))
    kind = {"F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}[out]
    mean = (one["w"].float() + two["w"].float()) * 0.5
    assert torch.equal(merged["w"], mean.to(kind))
    assert torch.equal(merged["b"], one["b"].to(kind)), "one side alone changed it"
    assert torch.equal(merged["n"], base["n"])


def test_a_number_that_the_dtype_cannot_hold_is_an_error(merger):
    base, one, two = ({"w": torch.ones(4), "v": torch.full((4,), v)} for v in (1.0, 1e6, 1.0))
    two["w"] = one["w"] * 2
    found = merger.versions(*map(save, (base, one, two)))
    with pytest.raises(MergeError, match="v has numbers too large for float16"):
        merger.execute(found, "*=average", out_dtype="F16")


def test_the_scales_of_quantized_weights_keep_their_dtype(merger):
    codes = torch.arange(16, dtype=torch.int8).view(torch.float8_e4m3fn).reshape(4, 4)
    base, one = (
        {"w.weight": codes, "w.weight_scale_inv": torch.full((1, 1), v), "b": torch.full((4,), v)}
        for v in (1.0, 2.0)
    )
    found = merger.versions(save(base), save(one), save(base))
    merged = load(merger.file(merger.execute(found, out_dtype="BF16").manifest))
    assert merged["w.weight_scale_inv"].dtype == torch.float32
    assert merged["b"].dtype == torch.bfloat16


@pytest.mark.parametrize("rule", ["*=svd", "*=core:rule=tsv,rank=2"])
def test_factors_of_an_update_are_cast(merger, rule):
    name = "base_model.model.layers.0.q.lora_{}.weight"
    sides = [
        {name.format("A"): torch.randn(2, 5), name.format("B"): torch.randn(6, 2)} for _ in range(3)
    ]
    found = merger.versions(*map(save, sides))
    merged = load(merger.file(merger.execute(found, rule, out_dtype="BF16").manifest))
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    shapes = {key: list(tensor.shape) for key, tensor in merged.items()}
    assert shapes == {name.format("A"): [2, 5], name.format("B"): [6, 2]}
