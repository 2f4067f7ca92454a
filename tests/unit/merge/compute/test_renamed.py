"""The merged file of sides of which one renamed its tensors."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta.merge.planning.samples import are_near


def draw(seed: int, dtype=np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((32, 8)).astype(dtype)


BASE = {"a.weight": draw(1), "b.weight": draw(2), "c.weight": draw(3)}


def moved(arrays, step: float, *names: str):
    return {n: a + np.float32(step) * draw(9) if n in names else a for n, a in arrays.items()}


def prefixed(arrays):
    return {f"module.{name}": a for name, a in arrays.items()}


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_prefix_and_training_of_both_sides(merger, is_ours):
    one = moved(BASE, 0.1, "a.weight", "b.weight")
    two = prefixed(moved(BASE, 0.2, "b.weight", "c.weight"))
    sides = (two, one) if is_ours else (one, two)
    versions = merger.versions(BASE, *sides)
    merged = merger.merge(versions, "*=average")
    assert sorted(merged) == [f"module.{name}" for name in BASE]
    np.testing.assert_array_equal(merged["module.a.weight"], one["a.weight"])
    np.testing.assert_array_equal(merged["module.c.weight"], two["module.c.weight"])
    expected = (one["b.weight"] + two["module.b.weight"]) / 2
    np.testing.assert_allclose(merged["module.b.weight"], expected, rtol=1e-6)


def test_other_numbers_by_another_name_are_another_tensor(merger):
    theirs = prefixed({name: draw(20 + n) for n, name in enumerate(BASE)})
    plan = merger.plan(merger.versions(BASE, moved(BASE, 0.1, "a.weight"), theirs), "*=average")
    (conflict,) = plan.conflicts
    assert "dev may have renamed it to module.a.weight" in conflict.reason


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_near_numbers(dtype):
    def stored(array: np.ndarray) -> np.ndarray:
        if dtype == "BF16":
            return (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
        kinds = {"F64": np.float64, "F32": np.float32, "F16": np.float16}
        return array.astype(kinds[dtype]).view(np.uint8)

    one, other = draw(1).ravel(), draw(2).ravel()
    assert are_near(dtype, stored(one), stored(one + 0.2 * other))
    assert not are_near(dtype, stored(one), stored(other))
    assert not are_near(dtype, stored(np.full(4, np.nan)), stored(np.full(4, np.nan)))


def test_near_integers():
    one = np.arange(64, dtype=np.uint8)
    assert are_near("I8", one, np.where(one < 40, one, 0))
    assert not are_near("I8", one, one[::-1].copy())
