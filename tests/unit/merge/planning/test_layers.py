"""Layers by the names of tensors."""

from __future__ import annotations

import pytest

from git_theta.merge.planning.layers import depth_of, layer_counts, layer_of, renumbered


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.7.mlp.down_proj.weight", ("model.layers", 7)),
        ("transformer.h.0.ln_1.bias", ("transformer.h", 0)),
        ("bert.encoder.layer.11.output.dense.weight", ("bert.encoder.layer", 11)),
        ("model.layers.3.mlp.experts.5.w1.weight", ("model.layers", 3)),
        ("base_model.model.model.layers.2.q.lora_A.weight", ("base_model.model.model.layers", 2)),
        ("blk.4.attn_q.weight", ("blk", 4)),
        ("encoder.block.5.layer.0.SelfAttention.q.weight", ("encoder.block", 5)),
        ("lm_head.weight", None),
        ("classifier.0.weight", None),
        ("model.norm.weight", None),
    ],
)
def test_the_layer_of_a_tensor(name, expected):
    assert layer_of(name) == expected


def test_depths_of_two_towers():
    names = [f"encoder.layers.{n}.w" for n in range(3)] + [f"decoder.layers.{n}.w" for n in (0, 4)]
    counts = layer_counts([*names, "head.weight"])
    assert counts == {"encoder.layers": 3, "decoder.layers": 5}
    assert [depth_of(name, counts) for name in names] == [0, 0.5, 1, 0, 1]
    assert depth_of("head.weight", counts) == 0
    assert depth_of("layers.0.w", {"layers": 1}) == 1, "as in mergekit"
    assert depth_of("layers.9.w", {"layers": 3}) == 1, "a stranger's count"


def test_a_tensor_in_another_layer():
    assert renumbered("model.layers.7.experts.7.w", 12) == "model.layers.12.experts.7.w"
