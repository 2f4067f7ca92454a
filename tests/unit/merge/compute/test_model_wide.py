"""Strategies for the whole model count what is frozen, and what one side alone trained."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import reference_merge as reference

NAMES = ("embed", "first", "second", "third")


def draw(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


BASE = {"embed": draw(0, 900), **{name: draw(n, 40) for n, name in enumerate(NAMES[1:], 1)}}


def tuned(seed: int, *names: str) -> dict[str, np.ndarray]:
    moves = {name: draw(seed + n, BASE[name].size) / 8 for n, name in enumerate(names)}
    return BASE | {name: BASE[name] + move.astype(np.float32) for name, move in moves.items()}


def flat(tensors) -> np.ndarray:
    return np.concatenate([tensors[name].ravel().astype(np.float64) for name in NAMES])


SIDES = {
    "frozen embedding": (tuned(10, "first", "second"), tuned(20, "first", "second")),
    "other layers": (tuned(10, "first", "second"), tuned(20, "second", "third")),
    "few in common": (tuned(10, "first"), tuned(20, "embed", "first")),
}


@pytest.mark.parametrize("sides", SIDES.values(), ids=SIDES)
@pytest.mark.parametrize("density", ["0.02", "0.05", "0.1", "0.5"])
def test_ties_trims_the_whole_model(merger, sides, density):
    """Of what both changed alone, 86 of 100 elements differed from the paper's."""
    versions = merger.versions(BASE, *sides)
    merged = merger.merge(versions, f"*=ties:density={density}", include_one_sided=True)
    contributors = [flat(side) for side in sides]
    expected = reference.ties(contributors, flat(BASE), [1.0, 1.0], 1, density)
    np.testing.assert_allclose(flat(merged), expected, rtol=0, atol=2e-7)


def test_what_is_merged_is_the_same_without_all(merger):
    versions = merger.versions(BASE, *SIDES["other layers"])
    rule = "*=ties:density=0.05"
    every = merger.merge(versions, rule, include_one_sided=True)
    merged = merger.merge(versions, rule)
    np.testing.assert_array_equal(merged["second"], every["second"])
    np.testing.assert_array_equal(merged["first"], SIDES["other layers"][0]["first"])


def test_a_rule_counts_what_it_is_for(merger):
    """The rest of the model belongs to another rule."""
    versions = merger.versions(BASE, *SIDES["frozen embedding"])
    merged = merger.merge(versions, "embed=average", "*=ties:density=0.5")
    rest = {name: BASE[name] for name in NAMES[1:]}
    alone = merger.versions(rest, *({n: s[n] for n in rest} for s in SIDES["frozen embedding"]))
    for name, expected in merger.merge(alone, "*=ties:density=0.5").items():
        np.testing.assert_array_equal(merged[name], expected)


def test_model_stock_takes_the_angle_of_the_whole_model(merger):
    sides = SIDES["other layers"]
    merged = merger.merge(merger.versions(BASE, *sides), "*=model_stock:scope=model")
    expected = reference.model_stock([flat(side) for side in sides], flat(BASE))
    whole = dict(zip(NAMES, np.split(expected, np.cumsum([900, 40, 40])), strict=True))
    np.testing.assert_allclose(merged["second"], whole["second"], rtol=0, atol=2e-7)


def test_fisher_is_normalised_over_the_whole_model(merger):
    sides = SIDES["other layers"]
    information = [{n: np.abs(draw(seed, BASE[n].size)) for n in NAMES} for seed in (30, 40)]
    information[1]["embed"] *= 100
    statistics = [{"fisher": merger.store(each, "m.fisher.safetensors")} for each in information]
    versions = merger.versions(BASE, *sides, statistics=statistics)
    merged = merger.merge(versions, "*=fisher:floor=0")["second"]
    norms = [np.linalg.norm(flat(each)) for each in information]
    shares = [each["second"] / norm for each, norm in zip(information, norms, strict=True)]
    expected = sum(f * s["second"] for f, s in zip(shares, sides, strict=True)) / sum(shares)
    np.testing.assert_allclose(merged, expected, rtol=1e-4, atol=1e-6)


def test_frozen_tensors_are_not_even_decoded(merger, monkeypatch):
    from git_theta.merge.compute.loader import Loader

    loaded = []
    original = Loader._load
    monkeypatch.setattr(
        Loader,
        "_load",
        lambda self, action: (loaded.append(action.name), original(self, action))[1],
    )
    merger.merge(merger.versions(BASE, *SIDES["other layers"]), "*=ties")
    assert set(loaded) == {"first", "second", "third"}


def test_of_two_float_dtypes_the_wider_on_request(merger):
    fine = tuned(10, "first")
    coarse = {name: a.astype(np.float16) for name, a in tuned(20, "first").items()}
    versions = merger.versions(BASE, fine, coarse)
    (conflict,) = [c for c in merger.plan(versions, "*=average").conflicts if c.name == "first"]
    assert conflict.reason.endswith("(main: F32, dev: F16); --widen merges it in F32")
    for sides in ((fine, coarse), (coarse, fine)):
        merged = merger.merge(merger.versions(BASE, *sides), "*=average", widen=True)
        assert merged["first"].dtype == np.float32
        expected = (fine["first"].astype(np.float64) + coarse["first"]) / 2
        np.testing.assert_allclose(merged["first"], expected, rtol=1e-6)
        assert merged["embed"].dtype == np.float16  # one side alone changed it
