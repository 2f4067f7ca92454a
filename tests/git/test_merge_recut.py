"""One branch trained a model, the other cut it into other files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load

from tests.support import checkpoints
from tests.support.branches import is_settled
from tests.support.repo import Repo

INDEX = "model.safetensors.index.json"
BASE = checkpoints.tensors(rows=4, layers=6)
TUNED = {name: a + np.float32(1) for name, a in BASE.items()}


def files(arrays, total: int) -> dict[str, bytes]:
    names, made, places = sorted(arrays), {}, {}
    for number, part in enumerate(np.array_split(names, total), 1):
        path = f"model-{number:05}-of-{total:05}.safetensors"
        made[path] = checkpoints.safetensors({name: arrays[name] for name in part})
        places |= dict.fromkeys(part, path)
    size = sum(a.nbytes for a in arrays.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    return made | {INDEX: json.dumps(index, indent=2).encode()}


@pytest.fixture
def branches(once, home, model) -> Repo:
    def work() -> None:
        model.commit_files(files(BASE, 2))
        for name, new in (("tuned", files(TUNED, 2)), ("cut", files(BASE, 3))):
            model.git("checkout", "-q", "-b", name, "main")
            model.git("rm", "-q", "--cached", "*-of-00002.safetensors")
            for old in model.path.glob("model-*"):
                old.unlink()
            model.commit_files(new)

    once("recut", home, model, work)
    return model


def merged(repo: Repo) -> dict[str, np.ndarray]:
    index = json.loads(repo.read(INDEX))["weight_map"]
    parts = {path: load(repo.read(path)) for path in set(index.values())}
    assert {p.name for p in repo.path.glob("model-*.safetensors")} == set(parts)
    return {name: parts[path][name] for name, path in index.items()}


@pytest.mark.parametrize(("ours", "theirs"), [("tuned", "cut"), ("cut", "tuned")])
def test_all_tensors_are_tuned_and_cut_anew(branches, theta, ours, theirs):
    """Four of twelve were in conflict, and either side loaded with layers of the base."""
    branches.git("checkout", "-q", ours)
    done = theta(branches, "merge", theirs)
    assert done.returncode == 0, done.stderr
    found = merged(branches)
    assert found.keys() == TUNED.keys()
    for name, array in TUNED.items():
        np.testing.assert_array_equal(found[name], array)
    assert "of-00003" in json.loads(branches.read(INDEX))["weight_map"]["layer.0.weight"]
    assert is_settled(branches)


def test_a_strategy_over_the_whole_model_and_again(branches, theta):
    branches.git("checkout", "-q", "cut")
    moved = {name: a - np.float32(2) for name, a in BASE.items()}
    branches.commit_files(files(moved, 3))
    done = theta(branches, "merge", "tuned", "--strategy", "ties", "-p", "density=0.5")
    assert done.returncode == 0, done.stderr
    values = np.concatenate([(a - BASE[n]).ravel() for n, a in merged(branches).items()])
    assert set(np.unique(values.round(3))) <= {-2.0, -0.5, 0.0, 1.0}
    done = theta(branches, "replay")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("the same bits") == 3


def test_git_alone_stops_and_says_what_to_do(branches, theta):
    branches.git("checkout", "-q", "tuned")
    done = branches.process("merge", "cut")
    assert done.returncode == 1
    branches.git("merge", "--abort")
    # The same files, of which one has a tensor of the other: git asks our driver.
    branches.git("checkout", "-q", "-b", "moved", "main")
    first, second = sorted(path.name for path in branches.path.glob("model-*"))
    parts = [load(branches.read(path)) for path in (first, second)]
    parts[1]["layer.0.bias"] = parts[0].pop("layer.0.bias") + 0
    weights = {
        name: path for path, part in zip((first, second), parts, strict=True) for name in part
    }
    made = {
        path: checkpoints.safetensors(p) for path, p in zip((first, second), parts, strict=True)
    }
    branches.commit_files(made | {INDEX: json.dumps({"weight_map": weights}).encode()})
    branches.git("checkout", "-q", "tuned")
    done = branches.process("merge", "moved")
    assert done.returncode == 1
    said = done.stderr.decode()
    assert "cut this model into files differently" in said
    assert "hint: git merge --abort, then git theta merge moved" in said
    assert "cut this model" in theta(branches, "resolve", first, "--strategy", "average").stderr
    branches.git("merge", "--abort")
    done = theta(branches, "merge", "moved")
    assert done.returncode == 0, done.stderr
    assert "layer.0.bias" in load(branches.read(second))
    for name, array in merged(branches).items():
        np.testing.assert_array_equal(array, TUNED[name])
