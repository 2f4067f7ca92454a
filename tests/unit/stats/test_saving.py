"""Statistics as files beside checkpoints."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from git_theta import stats
from git_theta.errors import FormatError, UsageError
from git_theta.stats import Statistics
from git_theta.stats.names import in_checkpoint

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
        about = file.metadata()
    assert len(about.pop("model")) == 64
    assert about == {"statistic": "fisher", "examples": "7"}


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


def test_what_is_called_alike_needs_no_prefix():
    names = ["bert.a.weight", "bert.b.weight", "head.weight"]
    assert in_checkpoint(names, ["a.weight", "b.weight", "head.weight"]) == {
        "bert.a.weight": "a.weight",
        "bert.b.weight": "b.weight",
        "head.weight": "head.weight",
    }
    assert in_checkpoint(["a.weight"], ["b.a.weight", "a.weight"]) == {"a.weight": "a.weight"}


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (["layer.weight"], ["text.layer.weight", "image.layer.weight"]),
        (["text.layer.weight", "image.layer.weight"], ["layer.weight"]),
    ],
)
def test_names_that_may_mean_several_are_refused(names, known):
    with pytest.raises(UsageError, match="the names are ambiguous") as caught:
        in_checkpoint(names, known)
    assert caught.value.hint.startswith("rename the statistics")


def test_names_that_are_tied_in_the_checkpoint(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"embed.weight": WEIGHT, "head.weight": WEIGHT}, path)
    saved = load_file(fisher(head_weight=WEIGHT**2).save(path))
    assert torch.equal(saved["embed.weight"], WEIGHT**2)


def test_views_of_one_storage_are_parameters_of_their_own(tmp_path):
    path = tmp_path / "model.pt"
    fused = torch.rand(6, 5)
    torch.save({"query.weight": fused[:3], "key.weight": fused[3:]}, path)
    saved = load_file(fisher(query_weight=WEIGHT, key_weight=2 * WEIGHT).save(path))
    assert torch.equal(saved["query.weight"], WEIGHT)
    assert torch.equal(saved["key.weight"], 2 * WEIGHT)


def test_two_statistics_of_one_tensor_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"embed.weight": WEIGHT, "head.weight": WEIGHT}, path)
    with pytest.raises(UsageError, match=r"embed.weight and head.weight are one tensor"):
        fisher(embed_weight=WEIGHT, head_weight=WEIGHT).save(path)


def test_scalars_and_tensors_without_elements(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.tensor(1.0), "b": torch.zeros(0, 3)}, path)
    saved = load_file(fisher(a=torch.tensor(2.0), b=torch.zeros(0, 3)).save(path))
    assert saved["a"].item() == 2
    assert saved["b"].shape == (0, 3)


def test_a_failure_while_writing_leaves_the_file_as_it_was(checkpoint):
    path = fisher(layer_weight=WEIGHT).save(checkpoint)
    before = path.read_bytes()
    with pytest.raises(NotImplementedError, match="meta"):
        fisher(layer_bias=BIAS, layer_weight=WEIGHT.to("meta")).save(checkpoint)
    assert path.read_bytes() == before
    assert sorted(checkpoint.parent.iterdir()) == [path, checkpoint]


def test_what_does_not_fit_is_refused_and_nothing_is_written(checkpoint, tmp_path):
    path = fisher(layer_weight=WEIGHT).save(checkpoint)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"layer.weight is \[3, 5\] .* are \[5, 3\]"):
        fisher(layer_weight=WEIGHT.T).save(checkpoint)
    with pytest.raises(UsageError, match="has none of the tensors of these statistics"):
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
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        fisher(layer_weight=WEIGHT).save(tmp_path)
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"hello world")
    with pytest.raises(FormatError, match="not a well-formed safetensors file") as broken:
        fisher(layer_weight=WEIGHT).save(path)
    assert "stored whole" not in str(broken.value)
    path = tmp_path / "stub.safetensors"
    path.write_bytes(b'{"git-theta":1,"format":"safetensors"}\n')
    with pytest.raises(UsageError, match="still a manifest") as caught:
        fisher(layer_weight=WEIGHT).save(path)
    assert caught.value.hint == f"git theta checkout {path}"


def test_nothing_else_is_offered():
    assert stats.__all__ == ["Statistics", "fisher", "gram"]
