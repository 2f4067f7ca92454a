"""Pairs of factors in manifests that may be a stranger's, and products that are never made."""

from __future__ import annotations

import numpy as np
import pytest

from git_theta.commands.diff.changes import Tensor
from git_theta.commands.diff.products import Factors, cores, pairs_of, read_factors
from git_theta.manifest import Chunk

RANDOM = np.random.default_rng(3)
FIELDS = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}


def tensor(
    name: str, shape: tuple[int, ...], dtype: str = "F32", size: int | None = None
) -> Tensor:
    length = int(np.prod(shape)) * 4 if size is None else size
    return Tensor(name, dtype, shape, (Chunk(length, "0" * 64, ()),), (0, None))


def pair(
    down: tuple[int, ...] = (4, 6), up: tuple[int, ...] = (5, 4), **options: object
) -> list[Tensor]:
    stem = "base_model.model.layer.q.lora_"
    return [tensor(f"{stem}A.weight", down, **options), tensor(f"{stem}B.weight", up, **options)]


def test_factors_become_the_update_of_a_module():
    (found,) = pairs_of(pair(), FIELDS).values()
    assert (found.name, found.rank, found.shape, found.scale) == (
        *("base_model.model.layer.q.lora", 4),
        *((5, 6), 2.0),
    )
    down, up = (RANDOM.standard_normal(shape).astype(np.float32) for shape in ((4, 6), (5, 4)))

    class Given:
        def read(self, wanted):
            return [(down if wanted[0].length == down.nbytes else up).reshape(-1).view(np.uint8)]

    read = read_factors(found, Given())
    np.testing.assert_allclose(read.up @ read.down, 2 * up.astype(np.float64) @ down)


@pytest.mark.parametrize(
    ("tensors", "fields"),
    [
        (pair(), None),
        (pair(), {**FIELDS, "use_dora": True}),
        (pair(), {**FIELDS, "peft_type": "IA3"}),
        (pair(), {**FIELDS, "lora_alpha": "much"}),
        (pair(down=(3, 6)), FIELDS),
        (pair(up=(5, 4, 3)), FIELDS),
        (pair(down=(4,)), FIELDS),
        (pair(size=8), FIELDS),  # fewer bytes than the shape needs
        (pair(down=(4, 0)), FIELDS),
        (pair(dtype="F4"), FIELDS),
        (pair(down=(5000, 2), up=(2, 5000)), FIELDS),
        (pair()[:1], FIELDS),
        ([*pair(), tensor("base_model.model.layer.q.lora_B.bias", (5,))], FIELDS),
    ],
)
def test_what_is_no_pair_of_factors_is_left_alone(tensors, fields):
    assert pairs_of(tensors, fields) == {}


def test_cores_have_the_inner_products_of_the_products():
    made = [
        Factors(RANDOM.standard_normal((30, rank)), RANDOM.standard_normal((rank, 20)))
        for rank in (3, 8, 1)
    ]
    small = cores(made)
    products = [each.up @ each.down for each in made]
    for one, core in zip(products, small, strict=True):
        for other, second in zip(products, small, strict=True):
            assert np.vdot(core, second) == pytest.approx(np.vdot(one, other), rel=1e-9)
    moved = np.linalg.norm(small[0] - small[1])
    assert moved == pytest.approx(np.linalg.norm(products[0] - products[1]), rel=1e-12)
