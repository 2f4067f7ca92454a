from __future__ import annotations

import pytest

from git_theta.merge.planning.low_rank_names import Place, place_of
from tests.support.adapter_plans import A, B, configured, decide
from tests.support.manifests import manifest, tensor, versions


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (A, Place("base_model.model.l.q", "", "A")),
        (B, Place("base_model.model.l.q", "", "B")),
        ("q.lora_A.default.weight", Place("q", "default", "A")),
        ("q.lora_B.my.name.weight", Place("q", "my.name", "B")),
        ("q.lora_B.bias", Place("q", "", "B.bias")),
        ("q.lora_embedding_A", Place("q", "", "A")),
        ("q.lora_embedding_B.default", Place("q", "default", "B")),
        ("q.lora_magnitude_vector", Place("q", "", "magnitude_vector")),
        ("q.lora_magnitude_vector.default.weight", Place("q", "default", "magnitude_vector")),
        ("q.weight", None),
        ("explora_A.weight", None),
        ("lora_A.weight", None),
        (".lora_A.weight", None),
        ("q.lora_", None),
        ("q.lora_0.weight", None),
        ("q.lora_A", Place("q", "", "A")),
        ("q.lora_A.x.lora_B.weight", Place("q", "x.lora_B", "A")),
        ("q.lora_A...!", Place("q", ".", "A.!")),
    ],
)
def test_names_of_factors(name, place):
    assert place_of(name) == place


def test_a_module_by_another_name_is_another_module():
    """Both are called q in the configuration: each has factors of its own."""
    names = [f"{stem}q.lora_{role}.weight" for stem in ("", "base_model.model.") for role in "AB"]
    shapes = [(2, 5), (3, 2)] * 2
    sides = (
        manifest(*(tensor(n, word, "F32", s) for n, s in zip(names, shapes, strict=True)))
        for word in "abc"
    )
    units = decide(configured(versions(*sides)), "*=svd").units
    assert [(unit.name, unit.module) for unit in units] == [(names[0], "q"), (names[2], "q")]


# --- both factors or none -------------------------------------------------------------------------
