"""`git theta merge` with gradients over layers, ranges of layers and another dtype."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load

from tests.support import checkpoints
from tests.support.branches import is_settled, recipe

PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
BASE = checkpoints.tensors(rows=4, layers=4)


def files(change: float) -> dict[str, bytes]:
    arrays = {name: array + np.float32(change) for name, array in BASE.items()}
    halves = [
        {n: a for n, a in arrays.items() if (n < "layer.2") is first} for first in (True, False)
    ]
    return dict(zip(PARTS, map(checkpoints.safetensors, halves), strict=True))


@pytest.fixture
def split(once, home, model):
    """Main and a side, which moved every number by 1 and by 3, of four layers in two files."""

    def work() -> None:
        model.commit_files(files(0))
        model.git("checkout", "-q", "-b", "side")
        model.commit_files(files(3))
        model.git("checkout", "-q", "main")
        model.commit_files(files(1))

    once("split", home, model, work)
    return model


@pytest.mark.parametrize("command", ["merge", "git merge"])
def test_layers_are_counted_over_all_files_of_a_model(split, theta, command):
    if command == "merge":
        done = theta(split, "merge", "side", "--strategy", "average", "-p", "weight.side=[0,3]")
    else:
        split.write(".theta.toml", b"merge.strategy = 'average:weight[theirs]=[0,3]'\n")
        done = split.process("merge", "-q", "--no-edit", "side")
    assert done.returncode == 0, done.stderr
    merged = {name: a for part in PARTS for name, a in load(split.read(part)).items()}
    for layer, weight in enumerate((0, 1, 2, 3)):
        name = f"layer.{layer}.bias"
        expected = BASE[name] + (1 + 3 * weight) / (1 + weight)
        np.testing.assert_allclose(merged[name], expected, rtol=1e-5, atol=1e-6)
    found = recipe(split, path=PARTS[1])
    assert found["layers"] == {"layer": 4}
    assert found["rules"][0]["hyperparameters"]["weight"] == [1.0, {"gradient": [0.0, 3.0]}]
    assert theta(split, "replay").stdout.count("the same bits") == 2


def test_a_range_of_layers_and_another_dtype(split, theta):
    rules = ("--rule", "layer.1-2.*=take:side=side", "--strategy", "take", "-p", "side=ours")
    done = theta(split, "merge", "side", *rules, "--out-dtype", "float16")
    assert done.returncode == 0, done.stderr
    merged = {name: a for part in PARTS for name, a in load(split.read(part)).items()}
    for name, array in BASE.items():
        change = 3 if name[6] in "12" else 1
        np.testing.assert_array_equal(merged[name], (array + np.float32(change)).astype("f2"))
    assert is_settled(split)
    assert theta(split, "replay").stdout.count("the same bits") == 2


def test_a_model_of_slices_of_two_branches(model, theta):
    """The current branch has no commits of its own: it is the ancestor, and git would go ahead."""
    model.commit_files({"m.safetensors": checkpoints.safetensors(BASE)})
    model.git("checkout", "-q", "-b", "side")
    tuned = {name: array + np.float32(1) for name, array in BASE.items()}
    model.commit_files(
        {"m.safetensors": checkpoints.safetensors(tuned), "config.json": b'{"n_layer": 4}\n'}
    )
    model.git("checkout", "-q", "main")
    done = theta(model, "merge", "side", "--slice", "main:0-2", "--slice", "side:2-3")
    assert done.returncode == 0, done.stderr
    merged = load(model.read("m.safetensors"))
    assert sorted({name[6] for name in merged}) == list("01234")
    for number, (side, layer) in enumerate(
        [(BASE, 0), (BASE, 1), (BASE, 2), (tuned, 2), (tuned, 3)]
    ):
        expected = side[f"layer.{layer}.weight"]
        np.testing.assert_array_equal(merged[f"layer.{number}.weight"], expected)
    assert model.read("config.json") == b'{\n  "n_layer": 5\n}\n'
    assert is_settled(model)
    assert theta(model, "replay").stdout == "m.safetensors: the same bits\n"
