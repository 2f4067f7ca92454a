"""Codes and their scales are one unit."""

from __future__ import annotations

import pytest

from git_theta.merge.planning.actions import Merge, Take
from tests.support.adapter_plans import decide
from tests.support.manifests import manifest, tensor, versions

# Tensors of one quantized weight, as the programs that write them call them.
FAMILIES = {
    "deepseek fp8": {"l.weight": "F8_E4M3", "l.weight_scale_inv": "F32"},
    "fp8 without a module": {"w": "F8_E4M3", "w_scale_inv": "F32"},
    "compressed-tensors": {
        "l.weight": "F8_E4M3",
        "l.weight_scale": "BF16",
        "l.input_scale": "BF16",
    },
    "comfy": {"l.weight": "F8_E4M3", "l.scale_weight": "F32", "l.scale_input": "F32"},
    "bitsandbytes 4 bit": {
        "l.weight": "U8",
        "l.weight.absmax": "U8",
        "l.weight.nested_absmax": "F32",
        "l.weight.quant_map": "F32",
        "l.weight.nested_quant_map": "F32",
        "l.weight.quant_state.bitsandbytes__nf4": "U8",
    },
    "bitsandbytes 8 bit": {"l.weight": "I8", "l.SCB": "F32", "l.weight_format": "U8"},
    "gptq": {"l.qweight": "I32", "l.qzeros": "I32", "l.scales": "F16", "l.g_idx": "I32"},
    "awq": {"l.qweight": "I32", "l.qzeros": "I32", "l.scales": "F16"},
    "packed": {"l.weight_packed": "I32", "l.weight_scale": "BF16", "l.weight_shape": "I64"},
    "nvfp4": {"l.weight": "U8", "l.weight_scale": "F8_E4M3", "l.weight_scale_2": "F32"},
    "mxfp4": {"e.gate_up_proj_blocks": "U8", "e.gate_up_proj_scales": "U8"},
    "hqq": {"l.W_q": "U8", "l.scale": "F16", "l.zero": "F16"},
    "quanto": {"l.weight._data": "I8", "l.weight._scale": "F32", "l.input_scale": "F32"},
    "hqq in parts": {"l.W_q": "U8", "l.meta.scale": "F16", "l.meta.zero": "F16"},
    "names of one's own": {"l.w_q": "I8", "l.w_s": "F32"},
    "torchao": {"l._weight_qdata": "I8", "l._weight_scale": "F32"},
}


def side(word: str, family: dict[str, str]):
    norm = tensor("norm.weight", word, "F32")
    return manifest(*(tensor(name, word, kind) for name, kind in family.items()), norm)


def three(family: dict[str, str]):
    return versions(*(side(word, family) for word in "abc"))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties"])
def test_no_strategy_merges_codes_or_scales(family, method):
    plan = decide(three(family), f"*={method}")
    assert [type(action) for action in plan.kept] == [Merge]  # the norm
    (conflict,) = plan.conflicts
    assert f"its {len(family)} tensors are codes and their scales" in conflict.reason
    assert "which no strategy can merge; it can merge the weights before" in conflict.reason
    assert conflict.is_final is False  # a rule matches it: a hint takes a side
    finals = {each.name: each.is_final for each in decide(three(family)).conflicts}
    assert finals == {conflict.name: True, "norm.weight": False}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_they_are_taken_from_one_side_together(family):
    """A rule for any of them is for all."""
    for name in family:
        actions = decide(three(family), f"{name}=take:side=theirs", "*=average").actions
        taken = [action for action in actions if isinstance(action, Take)]
        assert {action.name for action in taken} == set(family)
        assert {action.side for action in taken} == {1}


def test_codes_on_one_side_and_the_scale_on_the_other_is_a_conflict():
    """Git's default took our codes with their scale."""
    before = {"w": "a", "w_scale_inv": "a"}
    sides = [before, before | {"w": "b"}, before | {"w_scale_inv": "b"}]
    kinds = FAMILIES["fp8 without a module"]
    found = versions(*(manifest(*(tensor(n, w, kinds[n]) for n, w in s.items())) for s in sides))
    (conflict,) = decide(found).conflicts
    assert conflict.reason.startswith("main and dev changed it, and its 2 tensors are codes")


def test_one_side_alone_is_taken_whole():
    kinds = FAMILIES["gptq"]
    found = versions(side("a", kinds), side("a", kinds), side("b", kinds))
    assert {(a.side, a.why) for a in decide(found, "*=average").actions} == {(1, "one-sided")}


@pytest.mark.parametrize(
    "names", [("n.weight", "n.scale"), ("g_idx", "h"), ("l.weight", "l.scales"), ("w", "w_scale")]
)
def test_floats_with_such_names_are_merged_as_ever(names):
    found = versions(*(manifest(**dict.fromkeys(names, word)) for word in "abc"))
    assert all(isinstance(action, Merge) for action in decide(found, "*=average").actions)


def test_fp8_without_scales_is_merged_as_ever():
    found = versions(*(manifest(tensor("l.weight", word, "F8_E4M3")) for word in "abc"))
    assert [type(action) for action in decide(found, "*=average").actions] == [Merge]
