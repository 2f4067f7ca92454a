"""Strategies of matrices, and those that count contributors, against independent references."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from git_theta.merge.kernels.slices import Inputs
from tests.support import reference_spectral as reference
from tests.support.merging import merge, merge_model

Arrays = Sequence[np.ndarray]
SHAPES = [(6, 8), (9, 4), (7, 7)]
OF_MATRICES: dict[str, Callable[[Arrays], np.ndarray]] = {
    "tsv": reference.tsv,
    "iso_c": reference.iso_c,
    "iso_cts": lambda taus: reference.iso_cts(taus, 0.8),
    "iso_cts:common=0.4": lambda taus: reference.iso_cts(taus, 0.4),
}
ELEMENTWISE: dict[str, Callable[[Arrays], np.ndarray]] = {
    "consensus": lambda taus: reference.consensus(taus, 0.4, 2),
    "consensus:threshold=1,agree=1": lambda taus: reference.consensus(taus, 1, 1),
    "ram": lambda taus: reference.ram(taus, 1e-5),
    "ram:threshold=0.5": lambda taus: reference.ram(taus, 0.5),
    "ram_plus": lambda taus: reference.ram_plus(taus, 1e-5, 0.1, 0.2),
    "ram_plus:threshold=0.9,r=1,alpha=3": lambda taus: reference.ram_plus(taus, 0.9, 1, 3),
}
EVERY = OF_MATRICES | ELEMENTWISE


def draw(seed: int, shape: Sequence[int], number: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(tuple(shape), generator=generator) for _ in range(number)]


def taus(models: Sequence[torch.Tensor], base: torch.Tensor) -> list[np.ndarray]:
    return [(model - base).double().numpy() for model in models]


@pytest.mark.parametrize("text", EVERY)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("number", [2, 3])
def test_matches_the_reference(text, shape, number):
    *models, base = draw(len(text), shape, number + 1)
    for scale in (1.0, 0.4):
        joint = "," if ":" in text else ":"
        merged = merge(f"{text}{joint}lambda={scale}", models, base).double().numpy()
        expected = base.double().numpy() + scale * EVERY[text](taus(models, base))
        np.testing.assert_allclose(merged, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", [*EVERY, "wudi"])
@pytest.mark.parametrize("shape", [(5, 6), (4,)])
def test_the_order_of_the_contributors_changes_no_bit(text, shape):
    *models, base = draw(3, shape, 4)
    first = merge(text, models, base)
    for order in itertools.permutations(models):
        assert torch.equal(merge(text, order, base), first)


@pytest.mark.parametrize("text", [*OF_MATRICES, "wudi", "consensus"])
def test_scaling_all_task_vectors_scales_the_result(text):
    zero = torch.zeros(5, 6)
    models = draw(4, (5, 6), 3)
    doubled = merge(text, [2 * model for model in models], zero)
    torch.testing.assert_close(doubled, 2 * merge(text, models, zero), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", [*OF_MATRICES, "wudi"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [("b", (6,)), ("conv", (2, 3, 2, 2)), ("model.embed_tokens.weight", (6, 4)), ("s", ())],
)
def test_what_is_no_matrix_gets_the_mean(text, name, shape):
    *models, base = draw(5, shape, 4)
    merged = merge_model(text, [Inputs.of(name, models, base)])[name]
    expected = base + sum(model - base for model in models) / 3
    torch.testing.assert_close(merged, expected)


def test_embeddings_on_request():
    *models, base = draw(6, (6, 4), 3)
    inputs = [Inputs.of("lm_head.weight", models, base)]
    found = merge_model("iso_c:embeddings=true", inputs)["lm_head.weight"]
    torch.testing.assert_close(found, merge("iso_c", models, base))


@pytest.mark.parametrize("text", ["tsv", "wudi"])
def test_one_contributor_is_itself(text):
    model, base = draw(7, (5, 6), 2)
    torch.testing.assert_close(merge(text, [model], base), model, rtol=1e-4, atol=1e-4)


def test_iso_c_has_equal_singular_values():
    *models, base = draw(8, (6, 8), 4)
    values = torch.linalg.svdvals(merge("iso_c", models, base) - base)
    summed = sum(model - base for model in models)
    torch.testing.assert_close(values, torch.linalg.svdvals(summed).mean().expand(6))


def test_tsv_keeps_what_is_orthogonal():
    """Tasks of different rows and columns do not interfere at all."""
    base = torch.zeros(6, 6)
    one, two = base.clone(), base.clone()
    one[:3, :3], two[3:, 3:] = draw(9, (3, 3), 2)
    torch.testing.assert_close(merge("tsv", [one, two], base), one + two, rtol=1e-4, atol=1e-5)


def test_wudi_is_where_the_descent_of_the_paper_ends():
    """With columns that all contributors together excite, the minimum is one."""
    *models, base = draw(10, (6, 4), 4)
    deltas = taus(models, base)
    merged = merge("wudi:ridge=1e-12", models, base).double().numpy() - base.double().numpy()
    tau = np.sum(deltas, axis=0)
    for _ in range(20_000):
        tau = tau - 0.2 * reference.interference_gradient(tau, deltas)
    np.testing.assert_allclose(merged, tau, rtol=1e-4, atol=1e-5)
    assert reference.interference(merged, deltas) <= reference.interference(tau, deltas) + 1e-9


def test_wudi_of_frozen_matrices():
    (base,) = draw(11, (5, 6), 1)
    assert torch.equal(merge("wudi", [base, base.clone()], base), base)


def test_ram_keeps_what_one_alone_changed():
    base = torch.zeros(4)
    one, two = torch.tensor([1.0, 0, 4, 0]), torch.tensor([0.0, 2, 2, 0])
    assert merge("ram", [one, two], base).tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize("shape", [(6, 8), (9,), (3, 2, 4), ()])
def test_fusion_of_two(shape):
    ours, theirs = draw(12, shape, 2)
    wide = [
        t.double().numpy().reshape(1) if not shape else t.double().numpy() for t in (ours, theirs)
    ]
    merged = merge("arcee_fusion", [ours, theirs]).double().numpy()
    np.testing.assert_allclose(merged, reference.arcee_fusion(*wide).reshape(shape), atol=1e-6)
    if len(shape) == 2:
        assert not np.array_equal(merged, wide[0])
    merged = merge("nearswap:t=0.3", [ours, theirs]).double().numpy()
    np.testing.assert_allclose(merged, reference.nearswap(*wide, 0.3).reshape(shape), atol=1e-6)


@pytest.mark.parametrize("step", [1e-4, 1e-3, 0.1, 3])
def test_arcee_fusion_takes_what_float64_takes_however_small_the_step(step):
    ours, change = draw(14, (300, 200), 2)
    theirs = ours + change * step
    expected = reference.arcee_fusion(ours.double().numpy(), theirs.double().numpy())
    apart = merge("arcee_fusion", [ours, theirs]).double().numpy() != expected
    assert apart.mean() < 1e-3


def test_nearswap_moves_no_element_by_more_than_t():
    ours, theirs = draw(13, (50,), 2)
    merged = merge("nearswap:t=0.1", [ours, theirs])
    assert (merged - ours).abs().max() <= 0.1 + 1e-6
    near = (ours - theirs).abs() <= 0.1
    torch.testing.assert_close(merged[near], theirs[near])
    assert torch.equal(merge("nearswap:t=0.1", [ours, ours.clone()]), ours)
