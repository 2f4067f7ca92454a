"""Low-rank updates by the names of other programs than PEFT."""

from __future__ import annotations

import pytest

from git_theta.merge.planning.actions import Merge, Take, UnitMember
from git_theta.merge.planning.low_rank_names import places_of
from tests.support.adapter_plans import decide, reason
from tests.support.manifests import manifest, tensor, versions

DOWN, UP = (2, 50), (30, 2)
PAIRS = {
    "kohya": ("lora_unet_q.lora_down.weight", "lora_unet_q.lora_up.weight"),
    "diffusers": ("attn1.processor.to_q_lora.down.weight", "attn1.processor.to_q_lora.up.weight"),
    "diffusers, later": ("to_q.lora.down.weight", "to_q.lora.up.weight"),
    "text encoder": ("q.lora_linear_layer.down.weight", "q.lora_linear_layer.up.weight"),
    "flux": ("b.0.processor.qkv_lora1.down.weight", "b.0.processor.qkv_lora1.up.weight"),
    "nemo": ("a.lora_kqv_adapter.linear_in.weight", "a.lora_kqv_adapter.linear_out.weight"),
    "megatron bridge": ("qkv.adapter.linear_in.weight", "qkv.adapter.linear_out.weight"),
    "gguf": ("blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"),
    "torchtune": ("l.q.lora_a.weight", "l.q.lora_b.weight"),
}
LOHA = [f"u.hada_w{n}_{f}" for n in (1, 2) for f in "ab"]
LOKR = ["u.lokr_w1", "u.lokr_w2_a", "u.lokr_w2_b"]


def sides(names, *extra, shapes=(DOWN, UP)):
    def side(word: str):
        pair = (tensor(n, word, "F32", s) for n, s in zip(names, shapes, strict=True))
        return manifest(*pair, *(tensor(n, word, "F32", ()) for n in extra))

    return versions(*map(side, "abc"))


@pytest.mark.parametrize("names", PAIRS.values(), ids=PAIRS)
def test_factors_are_merged_as_their_product(names):
    found = sides(names)
    assert "average cannot merge LoRA factors" in reason(found, "*=average")
    plan = decide(found, "*=svd")
    assert [type(action) for action in plan.actions] == [UnitMember, UnitMember]
    (unit,) = plan.units
    assert [entry.shape for entry in unit.results] == [DOWN, UP]


@pytest.mark.parametrize("stem", ["lora_unet_q", "to_q_lora"])
def test_alpha_is_a_part_of_the_update(stem):
    roles = ("lora_down", "lora_up") if stem == "lora_unet_q" else ("down", "up")
    names = [f"{stem}.{role}.weight" for role in roles]
    plan = decide(sides(names, f"{stem}.alpha"), "*=cat")
    (unit,) = plan.units
    assert [e.name for e in unit.results] == [*names, f"{stem}.alpha"]
    assert unit.results[0].shape == (6, 50)  # the ancestor's too
    assert len(plan.actions) == 3


def test_an_alpha_of_nothing_is_a_tensor():
    assert places_of(["q.alpha", "r.lora_down.weight"]).keys() == {"r.lora_down.weight"}


@pytest.mark.parametrize("extra", ["dora_scale", "lora_mid.weight"])
def test_more_than_two_factors_is_a_conflict(extra):
    found = sides(PAIRS["kohya"], f"lora_unet_q.{extra}")
    assert "it is not a pair of LoRA factors" in reason(found, "*=svd")


@pytest.mark.parametrize(("names", "kind"), [(LOHA, "LoHa"), (LOKR, "LoKr")])
def test_loha_and_lokr_are_taken_whole_or_not_at_all(names, kind):
    found = sides(names, "u.alpha", shapes=[(4, 4)] * len(names))
    for method in ("average", "svd"):
        assert f"it is a {kind} update" in reason(found, f"*={method}")
    actions = decide(found, "*=take:side=theirs").actions
    assert [(type(a), a.side) for a in actions] == [(Take, 1)] * (len(names) + 1)


def test_other_ranks_need_something_that_says_their_scale():
    names = PAIRS["diffusers"]
    one, two = sides(names), sides(names, shapes=((4, 50), (30, 4)))
    found = versions(one.base, one.contributors[0].manifest, two.contributors[1].manifest)
    assert "its ranks differ (2, 4, 2)" in reason(found, "*=svd")


def test_lower_case_factors_the_other_way_round_are_a_conflict():
    """MLX multiplies from the right: [in, r] and [r, out]."""
    found = sides(PAIRS["torchtune"], shapes=((50, 2), (2, 30)))
    assert "are not a pair of LoRA factors" in reason(found, "*=svd")
    square = sides(PAIRS["torchtune"], shapes=((50, 2), (2, 50)))
    assert "are not a pair of LoRA factors" in reason(square, "*=svd")


@pytest.mark.parametrize(
    "names",
    [
        ("l.down.weight", "l.up.weight"),
        ("l.delta_a", "l.delta_b"),
        ("l.U", "l.V"),
        ("m_left", "m_right"),
        ("l.loraA", "l.loraB"),
        ("x.linear_in.weight", "x.linear_out.weight"),
    ],
)
@pytest.mark.parametrize("shapes", [((2, 50), (30, 2)), ((50, 2), (2, 30))])
def test_what_looks_like_factors_is_a_conflict_that_says_so(names, shapes):
    found = sides(names, shapes=shapes)
    conflicts = decide(found, "*=average").conflicts
    assert [conflict.name for conflict in conflicts] == list(names)
    assert f"with {names[1]} it looks like factors of a low-rank update" in conflicts[0].reason
    # Who names them means it.
    assert all(isinstance(a, Merge) for a in decide(found, f"{names[0][0]}*=average").actions)


@pytest.mark.parametrize(
    ("names", "shapes"),
    [
        (("q.factor1", "q.factor2"), (DOWN, UP)),
        (("q.factors.0.weight", "q.factors.1.weight"), (DOWN, UP)),
        (("lora1.q.weight", "lora2.q.weight"), ((8, 32), (48, 8))),
        (("q.loraP.weight", "q.loraQ.weight"), ((32, 16), (16, 32))),
        (("q.reduce_lowrank.weight", "q.expand_lowrank.weight"), (DOWN, UP)),
        (("l.left", "l.right"), ((32, 8), (8, 32))),
        (("q.svd_u", "q.svd_v"), ((8, 16), (32, 8))),
    ],
)
def test_names_and_shapes_of_a_product_are_a_conflict(names, shapes):
    """At any rank that is worth it, and whatever words or numbers tell the factors apart."""
    names = sorted(names)
    found = sides([*names, "q.svd_s"], shapes=[*shapes, (5, 7)])
    conflicts = decide(found, "*=average").conflicts
    assert [conflict.name for conflict in conflicts] == names
    assert f"with {names[1]} it looks like factors" in conflicts[0].reason


@pytest.mark.parametrize(
    ("names", "shapes"),
    [
        (("mlp.down_proj.weight", "mlp.up_proj.weight"), ((8, 32), (32, 8))),
        (("mlp.down.weight", "mlp.up.weight"), ((8, 32), (32, 8))),
        (("q_a_proj.weight", "q_b_proj.weight"), ((4, 16), (32, 4))),
        (("l.A", "l.B"), ((2, 50), (30, 3))),
        (("l.u", "l.w"), ((2, 50), (30, 2))),
        (("rnn.U", "rnn.V"), ((8, 8), (50, 8))),
        (("experts.0.w1", "experts.0.w2"), ((32, 8), (8, 32))),
        (("moe.gate.weight", "moe.experts.1.weight"), ((2, 32), (32, 2))),
        (("embeddings.weight", "embedding_hidden_mapping_in.weight"), ((300, 8), (64, 8))),
        (("flora.0.weight", "flora.1.weight"), ((32, 32), (32, 32))),
        (("att.w1", "att.w2"), ((64, 4), (4, 64))),
    ],
)
def test_layers_are_no_factors(names, shapes):
    actions = decide(sides(names, shapes=shapes), "*=average").actions
    assert all(isinstance(action, Merge) for action in actions)


def test_layers_with_a_bias_are_no_factors():
    found = sides(("l.down.weight", "l.up.weight"), "l.down.bias")
    assert all(isinstance(action, Merge) for action in decide(found, "*=average").actions)
