"""Statistics as files beside checkpoints."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from git_theta import stats
from git_theta.errors import UsageError
from git_theta.stats import Statistics
from git_theta.stats.saving import in_checkpoint

WEIGHT, BIAS = torch.rand(3, 5), torch.rand(3)


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"layer.weight": WEIGHT, "layer.bias": BIAS}, path)
    return path


def fisher(**tensors: torch.Tensor) -> Statistics:
    named = {name.replace("_", "."): tensor for name, tensor in tensors.items()}
    return Statistics("fisher", named, 7)


def test_beside_the_checkpoint_under_its_names(checkpoint):
    path = fisher(layer_weight=WEIGHT**2, layer_bias=BIAS**2).save(checkpoint)
    assert path == checkpoint.with_name("model.fisher.safetensors")
    saved = load_file(path)
    assert torch.equal(saved["layer.weight"], WEIGHT**2)
    assert torch.equal(saved["layer.bias"], BIAS**2)
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"statistic": "fisher", "examples": "7"}


def test_the_same_tensors_give_the_same_bytes(checkpoint):
    one = fisher(layer_weight=WEIGHT, layer_bias=BIAS).save(str(checkpoint)).read_bytes()
    other = fisher(layer_bias=BIAS, layer_weight=WEIGHT).save(checkpoint).read_bytes()
    assert one == other


def test_in_bfloat16(checkpoint):
    tiny = WEIGHT * 1e-30
    path = fisher(layer_weight=tiny).save(checkpoint, dtype="bfloat16")
    saved = load_file(path)["layer.weight"]
    assert torch.equal(saved, tiny.bfloat16())
    assert bool((saved > 0).all())


def test_gram_matrices_fit_the_inputs_of_a_weight(checkpoint):
    path = Statistics("gram", {"layer.weight": torch.eye(5)}, 2).save(checkpoint)
    assert path.name == "model.gram.safetensors"
    for matrix in (torch.eye(3), torch.rand(3, 5)):
        with pytest.raises(UsageError, match=r"layer.weight is \[3, 5\] in the checkpoint"):
            Statistics("gram", {"layer.weight": matrix}, 2).save(checkpoint)


@pytest.mark.parametrize("prefix", ["bert.", "base_model.model.bert."])
def test_modules_around_the_model_and_heads_on_top(checkpoint, prefix):
    named = {f"{prefix}layer.weight": WEIGHT, "weight": BIAS, "classifier.weight": BIAS}
    path = Statistics("fisher", named, 7).save(checkpoint)
    assert set(load_file(path)) == {"layer.weight"}


def test_a_model_inside_of_the_checkpoint_s(checkpoint):
    assert set(load_file(fisher(weight=WEIGHT, bias=BIAS).save(checkpoint))) == {
        "layer.weight",
        "layer.bias",
    }


def test_one_prefix_for_all_names():
    names = ["bert.a.weight", "bert.b.weight", "a.weight"]
    assert in_checkpoint(names, ["a.weight", "b.weight"]) == {
        "bert.a.weight": "a.weight",
        "bert.b.weight": "b.weight",
    }
    assert in_checkpoint(["x.weight"], ["y.weight"]) == {}


def test_names_that_are_tied_in_the_checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"embed.weight": WEIGHT, "head.weight": WEIGHT}, path)
    saved = load_file(fisher(head_weight=WEIGHT**2).save(path))
    assert torch.equal(saved["embed.weight"], WEIGHT**2)


def test_what_does_not_fit_is_refused_and_nothing_is_written(checkpoint, tmp_path):
    path = fisher(layer_weight=WEIGHT).save(checkpoint)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"layer.weight is \[3, 5\] .* are \[5, 3\]"):
        fisher(layer_weight=WEIGHT.T).save(checkpoint)
    with pytest.raises(UsageError, match="has no parameter of which there are statistics"):
        fisher(other_weight=WEIGHT).save(checkpoint)
    with pytest.raises(UsageError, match="float32 or bfloat16"):
        fisher(layer_weight=WEIGHT).save(checkpoint, dtype="float16")
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "model.fisher.safetensors",
        "model.safetensors",
    ]


def test_a_checkpoint_that_is_not_there_or_not_checked_out(tmp_path):
    with pytest.raises(UsageError, match="there is no such checkpoint"):
        fisher(layer_weight=WEIGHT).save(tmp_path / "model.safetensors")
    path = tmp_path / "stub.safetensors"
    path.write_bytes(b'{"git-theta":1,"format":"safetensors"}\n')
    with pytest.raises(UsageError, match="still a manifest") as caught:
        fisher(layer_weight=WEIGHT).save(path)
    assert caught.value.hint == f"git theta checkout {path}"


def test_nothing_else_is_offered():
    assert stats.__all__ == ["Statistics", "fisher", "gram"]
