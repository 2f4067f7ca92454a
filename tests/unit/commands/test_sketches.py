"""Sketches keep inner products, are linear, and those of products are those of matrices."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta.commands.diff.products import Factors
from git_theta.commands.similar.sketches import SIZE, ProductSketch, sketch_matrix

RANDOM = np.random.default_rng(8)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.vdot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))


def factors(rank: int = 4) -> Factors:
    return Factors(RANDOM.standard_normal((150, rank)), RANDOM.standard_normal((rank, 90)))


def sketch(product: Factors, name: str = "w") -> np.ndarray:
    made = ProductSketch()
    made.add(name, product)
    return made.total()


def test_the_sketch_of_a_product_is_that_of_the_matrix():
    product = factors()
    matrix = product.up @ product.down
    np.testing.assert_allclose(sketch(product), sketch_matrix("w", matrix), atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_cosines_are_kept(share):
    one, other = (RANDOM.standard_normal((300, 200)) for _ in range(2))
    mixed = share * one + (1 - share) * other
    found = cosine(sketch_matrix("w", one), sketch_matrix("w", mixed))
    assert found == pytest.approx(cosine(one, mixed), abs=0.04)


def test_cosines_of_products_are_kept():
    errors = []
    for _ in range(20):
        one, other = factors(), factors()
        mixed = Factors(np.hstack([one.up, other.up]), np.vstack([one.down, other.down]))
        exact = cosine(one.up @ one.down, mixed.up @ mixed.down)
        errors.append(cosine(sketch(one), sketch(mixed)) - exact)
    # A standard error of 0.011, in a sample of 20.
    assert np.sqrt(np.mean(np.square(errors))) < 0.02


def test_names_tell_tensors_apart():
    product = factors()
    assert abs(cosine(sketch(product), sketch(product, "other"))) < 0.05


def test_sketches_are_the_same_for_ever():
    found = sketch_matrix("layer.0.weight", np.arange(6.0).reshape(2, 3))
    assert found.shape == (SIZE,)
    assert {int(at): float(found[at]) for at in np.flatnonzero(found)} == {
        **{2692: 2.0, 3128: 5.0, 3335: -3.0},
        **{4347: 1.0, 4783: 4.0},
    }
