"""A model in several files is merged as in one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from git_theta import merge_state_dicts
from tests.support import checkpoints
from tests.support.branches import is_settled, recipe
from tests.support.repo import Repo

PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
BASE = checkpoints.tensors(rows=16, layers=4)
METHOD = ("--strategy", "ties", "-p", "density=0.3")


def tuned(seed: int, scale: float) -> dict[str, np.ndarray]:
    """Layers change by more and more, so that shares of the model are unlike those of a file."""
    random = np.random.default_rng(seed)
    return {
        name: (a + scale * 4.0 ** int(name[6]) * random.standard_normal(a.shape)).astype(a.dtype)
        for name, a in BASE.items()
    }


ONE, TWO = tuned(1, 0.01), tuned(2, 0.02)


def files(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    first = {name: a for name, a in arrays.items() if name < "layer.2"}
    second = {name: a for name, a in arrays.items() if name >= "layer.2"}
    return dict(zip(PARTS, map(checkpoints.safetensors, (first, second)), strict=True))


@pytest.fixture
def split(once, home, model):
    """Main, and branches one and two, of a model in two files."""

    def work() -> None:
        model.commit_files(files(BASE))
        for name, arrays in (("one", ONE), ("two", TWO)):
            model.git("checkout", "-q", "-b", name, "main")
            model.commit_files(files(arrays))
        model.git("checkout", "-q", "main")

    once("split", home, model, work)
    return model


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """The merge of the whole model, in memory."""
    base, *sides = ({n: torch.from_numpy(a) for n, a in d.items()} for d in (BASE, ONE, TWO))
    merged = merge_state_dicts(base, sides, "ties", density=0.3)
    return {name: tensor.numpy() for name, tensor in merged.items()}


def check(repo: Repo, expected: dict[str, np.ndarray]) -> None:
    merged = {name: a for path in PARTS for name, a in load(repo.read(path)).items()}
    assert merged.keys() == expected.keys()
    for name, array in merged.items():
        np.testing.assert_array_equal(array, expected[name])
    # Of each file, or each tensor, by itself it would be another merge.
    assert any(np.array_equal(merged[name], BASE[name]) for name in merged)


def ok(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("how", ["theta", "git", "several"])
def test_a_strategy_that_looks_at_the_model_sees_all_of_its_files(
    split, theta, expected, how, theta_here
):
    split.git("checkout", "-q", "main" if how == "several" else "one")
    if how == "git":
        split.git("config", "theta.merge.strategy", "ties:density=0.3")
        split.git("merge", "-q", "two")
    else:
        ok(theta(split, "merge", *("one", "two")[how == "theta" :], *METHOD))
    check(split, expected)
    assert is_settled(split)
    assert [shard["path"] for shard in recipe(split, path=PARTS[0])["shards"]] == [PARTS[1]]
    assert ok(theta_here(split, "replay")).count("the same bits") == 2


def test_resolving_sees_all_files_too(split, theta, expected):
    split.git("checkout", "-q", "one")
    assert split.process("merge", "two").returncode == 1
    ok(theta(split, "resolve", *PARTS, *METHOD))
    split.git("commit", "-q", "--no-edit")
    check(split, expected)


def test_each_file_by_rules_of_its_own(model, theta, theta_here):
    """A name may be in two files, each of which another rule is for."""
    arrays = {"x": np.eye(4, dtype=np.float32), "y": np.ones((4, 4), np.float32)}
    for name, shift in (("main", 0), ("one", 1), ("two", 2)):
        model.git("checkout", "-q", "-B", name, "main")
        moved = {key: a + np.float32(shift) * (a + 1) for key, a in arrays.items()}
        model.commit_files(
            {
                PARTS[0]: checkpoints.safetensors(moved),
                PARTS[1]: checkpoints.safetensors({"x": moved["x"] * 2, "z": moved["y"]}),
            }
        )
    rules = "".join(
        f'[[merge.rules]]\nmatch = "*"\npath = "*-{part}-*"\nstrategy = "ties"\ndensity = {d}\n'
        for part, d in (("00001", 0.5), ("00002", 0.25))
    )
    model.git("checkout", "-q", "one")
    model.write(".theta.toml", rules.encode())
    ok(theta(model, "merge", "two"))
    rules = recipe(model, path=PARTS[0])["rules"]
    assert [rule["hyperparameters"]["density"] for rule in rules] == [[0.5, 0.5], [0.25, 0.25]]
    assert ok(theta_here(model, "replay")).count("the same bits") == 2


def test_where_the_other_files_are_not_known_it_is_said(split, theta, theta_here):
    """Each branch with the other's first commit merged: no commit has what they have in common."""
    tips = {}
    for name, layer in (("left", "layer.0"), ("right", "layer.3")):
        split.git("checkout", "-q", "-b", name, "main")
        some = {tensor: a for tensor, a in ONE.items() if tensor.startswith(layer)}
        tips[name] = split.commit_files(files(BASE | some))
    for name, other, arrays in (("left", "right", ONE), ("right", "left", TWO)):
        split.git("checkout", "-q", name)
        split.git("merge", "-q", "-s", "ours", tips[other])
        split.commit_files(files(arrays))
    said = ok(theta(split, "merge", "left", "--strategy", "ties"))
    assert said.count("only this file of the model was scanned") == 2
    assert "shards" not in recipe(split, path=PARTS[0])
    assert ok(theta_here(split, "replay")).count("the same bits") == 2


def test_what_looks_at_tensors_alone_knows_nothing_of_other_files(split, theta):
    split.git("checkout", "-q", "one")
    ok(theta(split, "merge", "two", "--strategy", "ties", "-p", "scope=tensor"))
    assert "shards" not in recipe(split, path=PARTS[0])
