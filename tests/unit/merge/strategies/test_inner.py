"""Strategies that apply another one: SVC after it, Core Space in a space of its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from git_theta.errors import MergeError
from git_theta.merge.compute.tensor import merge_by
from git_theta.merge.kernels.lora import CoreSpace, LoraFactors
from git_theta.merge.kernels.slices import Inputs
from git_theta.merge.rules.binding import bind
from git_theta.merge.rules.registry import strategy_named
from git_theta.merge.rules.strategy import Target
from tests.support import reference_spectral as reference
from tests.support.merging import NAMES, merge, merge_model, method


def draw(seed: int, *shapes: Sequence[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tuple(shape), generator=generator) for shape in shapes]


def wide(tensor: torch.Tensor) -> np.ndarray:
    return tensor.double().numpy()


# --- svc ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 8), (9, 4)])
@pytest.mark.parametrize(
    ("rule", "alpha"),
    [("task_arithmetic", 0.1), ("ties:scope=tensor", 0.5), ("average", 0.1), ("tsv", 1.0)],
)
def test_svc_is_the_reference_after_any_rule(shape, rule, alpha):
    *models, base = draw(1, *[shape] * 4)
    inner = wide(merge(rule, models, base)) - wide(base)
    chosen = "" if rule == "tsv" else f",alpha={alpha}"
    found = wide(merge(f"svc:rule=[{rule}]{chosen}", models, base)) - wide(base)
    expected = reference.svc(inner, [wide(model) - wide(base) for model in models], alpha)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_svc_counts_once_what_all_contributors_have():
    model, base = draw(2, (5, 6), (5, 6))
    found = merge("svc", [model, model.clone(), model.clone()], base)
    torch.testing.assert_close(found, model, rtol=1e-4, atol=1e-5)


def test_svc_of_what_is_orthogonal_changes_nothing():
    base = torch.zeros(6, 6)
    one, two = base.clone(), base.clone()
    one[:3, :3], two[3:, 3:] = draw(3, (3, 3), (3, 3))
    found = merge("svc:alpha=1", [one, two], base)
    torch.testing.assert_close(found, one + two, rtol=1e-4, atol=1e-5)


def test_svc_leaves_what_is_no_matrix_to_the_rule():
    *models, base = draw(4, (7,), (7,), (7,))
    assert torch.equal(merge("svc:rule=magmax", models, base), merge("magmax", models, base))


def test_svc_of_frozen_matrices():
    (base,) = draw(5, (4, 4))
    assert torch.equal(merge("svc", [base, base.clone()], base), base)


def test_the_prepass_of_the_rule_sees_the_whole_model():
    """Of one tensor alone, TIES would keep a fifth."""
    *models, base = draw(6, (5, 4), (5, 4), (5, 4))
    *large, zero = draw(7, (9, 9), (9, 9), (9, 9))
    large = [100 * tensor for tensor in large]
    model = [Inputs.of("a", models, base), Inputs.of("b", large, zero)]
    assert torch.equal(merge_model("svc:rule=ties", model)["a"], base)
    assert not torch.equal(merge("svc:rule=ties", models, base), base)


@pytest.mark.parametrize(
    "text", ["svc:rule=[dare_ties:density=0.6]", "svc:rule=[ties:weight[dev]=2]"]
)
def test_the_order_of_the_contributors_changes_no_bit(text):
    *models, base = draw(8, *[(5, 6)] * 4)
    first = merge(text.replace("[dev]", "[main]"), models, base)
    swapped = [models[1], models[0], models[2]]
    assert torch.equal(merge(text, swapped, base), first)


# --- core -----------------------------------------------------------------------------------------


def updates(seed: int, ranks: Sequence[int], out: int = 11, into: int = 7) -> list[LoraFactors]:
    found = []
    for number, rank in enumerate(ranks):
        down, up = draw(seed + number, (rank, into), (out, rank))
        found.append(LoraFactors(down, up, 0.5 + number))
    return found


def product(unit: LoraFactors) -> np.ndarray:
    return unit.scale * wide(unit.up.flatten(1)) @ wide(unit.down.flatten(1))


def core(text: str, units, base=None, rank: int | None = None) -> np.ndarray:
    chosen = method(f"core:rule=[{text}]" + (f",rank={rank}" if rank else ""), len(units))
    ranks = [unit.rank for unit in units]
    made = chosen.strategy.rank_of(chosen.values, ranks, base.rank if base else 0)
    merging = merge_by(chosen.values, "w")
    available = {"factors": units, "base": base, "target": Target(made, 2.0), "merge": merging}
    merged = chosen.strategy(available, chosen.values)
    assert merged.rank == made
    return product(merged)


@pytest.mark.parametrize("ranks", [(2, 3), (3, 3, 2), (5, 6)])
@pytest.mark.parametrize("has_base", [False, True])
def test_core_by_a_sum_is_the_sum_of_the_products(ranks, has_base):
    """In float64 references: it is exact, though ranks add up to more than the weight has."""
    *units, base = updates(1, (*ranks, 2))
    found = core("task_arithmetic:lambda=0.5", units, base if has_base else None)
    start = product(base) if has_base else 0
    expected = start + 0.5 * sum(product(unit) - start for unit in units)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_core_by_wudi_is_wudi_of_the_products():
    """The loss is that of the products: it does not depend on the space."""
    units = updates(2, (2, 3), into=5)
    found = core("wudi:ridge=1e-12", units)
    dense = [torch.from_numpy(product(unit)) for unit in units]
    expected = merge("wudi:ridge=1e-12", dense, torch.zeros(11, 5, dtype=torch.float64))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", ["tsv", "iso_c"])
def test_core_is_the_reference_by_a_rule_of_singular_values(rule):
    """These do not depend on which orthonormal basis spans the space."""
    units = updates(3, (2, 3))
    ups, downs = [wide(u.up) for u in units], [wide(u.down) for u in units]
    left, right = reference.core_space(ups, downs)
    cores = [left.T @ product(unit) @ right.T for unit in units]
    expected = left @ getattr(reference, rule)(cores) @ right
    np.testing.assert_allclose(core(rule, units), expected, rtol=1e-4, atol=1e-4)


def test_core_of_a_lower_rank_is_the_nearest():
    units = updates(4, (3, 3))
    summed = core("task_arithmetic", units)
    u, values, v = np.linalg.svd(summed)
    expected = (u[:, :2] * values[:2]) @ v[:2]
    np.testing.assert_allclose(core("task_arithmetic", units, rank=2), expected, atol=1e-4)


def test_the_space_spans_every_update():
    units = updates(5, (2, 3, 2))
    space = CoreSpace.of(units)
    for unit in units:
        back = space.left @ space.matrix(unit) @ space.right
        np.testing.assert_allclose(back.numpy(), product(unit), atol=1e-5)


def test_core_of_convolutions_keeps_their_axes():
    down, up = draw(6, (2, 3, 3, 3), (8, 2, 1, 1))
    units = [LoraFactors(down, up), LoraFactors(2 * down, up)]
    chosen = method("core", 2)
    available = {"factors": units, "base": None, "target": Target(4, 1.0)}
    available["merge"] = merge_by(chosen.values, "w")
    merged = chosen.strategy(available, chosen.values)
    assert (merged.down.shape, merged.up.shape) == ((4, 3, 3, 3), (8, 4, 1, 1))
    np.testing.assert_allclose(product(merged), 3 * product(units[0]), atol=1e-4)


@pytest.mark.parametrize("text", ["ties", "dare_linear", "tsv", "ties:weight[dev]=2"])
def test_core_in_any_order_has_the_same_bits(text):
    units = updates(7, (2, 2, 2))
    first = core(text.replace("dev", "main"), units)
    swapped = [units[1], units[0], units[2]]
    assert np.array_equal(core(text, swapped), first)


# --- the rule of a strategy -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("nothing", "there is no strategy called"),
        ("fisher", "fisher statistics"),
        ("slerp", "order"),
        ("take:side=ours", "order"),
        ("svc", "it has one itself"),
        ("cat", "no single tensors"),
        ("ties:density=2", "density"),
        ("", "there is no strategy called"),
    ],
)
def test_a_rule_that_cannot_be_within_another(rule, reason):
    with pytest.raises(MergeError, match=reason):
        method(f"svc:rule=[{rule}]", 2)


@pytest.mark.parametrize(
    "value", [3, ["ties"], {"strategy": 1}, {"strategy": "ties", "version": "1"}]
)
def test_a_malformed_rule_of_a_recipe(value):
    with pytest.raises(MergeError, match="rule cannot be"):
        bind(strategy_named("svc"), {"rule": value}, NAMES[:2])


def test_a_rule_of_another_version_is_refused():
    with pytest.raises(MergeError, match="version 99"):
        bind(strategy_named("svc"), {"rule": {"strategy": "ties", "version": 99}}, NAMES[:2])


def test_values_of_a_rule_follow_the_contributors():
    chosen = method("svc:rule=[ties:weight=[1,2,3]]", 3)
    orders = [
        chosen.values_of(order)["rule"]["hyperparameters"]["weight"]
        for order in itertools.permutations(range(3))
    ]
    assert orders[-1] == [3, 2, 1]
    assert orders[0] == [1, 2, 3]
