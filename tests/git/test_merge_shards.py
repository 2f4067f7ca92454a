"""A model in several files is merged as in one."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load

from tests.support import checkpoints
from tests.support.branches import is_settled, recipe
from tests.support.repo import Repo

WHOLE = "model.safetensors"
PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
BASE = checkpoints.tensors(rows=16, layers=4)


def tuned(seed: int, scale: float) -> dict[str, np.ndarray]:
    """Layers change by more and more, so that shares of the model are unlike those of a file."""
    random = np.random.default_rng(seed)
    return {
        name: (a + scale * 4.0 ** int(name[6]) * random.standard_normal(a.shape)).astype(a.dtype)
        for name, a in BASE.items()
    }


def files(arrays: dict[str, np.ndarray], split: bool) -> dict[str, bytes]:
    if not split:
        return {WHOLE: checkpoints.safetensors(arrays)}
    first = {name: a for name, a in arrays.items() if name < "layer.2"}
    second = {name: a for name, a in arrays.items() if name >= "layer.2"}
    return dict(zip(PARTS, map(checkpoints.safetensors, (first, second)), strict=True))


@pytest.fixture
def whole_and_split(once, home, model):
    """Branches one and two of a model in one file, and a second pair of it in two files."""

    def work() -> None:
        model.git("checkout", "-q", "-b", "start")
        for split, kind in ((False, "whole"), (True, "split")):
            model.git("checkout", "-q", "-B", kind, "start")
            model.commit_files(files(BASE, split))
            for number, name in enumerate(("one", "two"), 1):
                model.git("checkout", "-q", "-b", f"{kind}-{name}", kind)
                model.commit_files(files(tuned(number, 0.01 * number), split))

    once("whole and split", home, model, work)
    return model


def merged(repo: Repo, *paths: str) -> dict[str, np.ndarray]:
    return {name: a for path in paths for name, a in load(repo.read(path)).items()}


def ok(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("how", ["theta", "git", "several"])
def test_a_strategy_that_looks_at_the_model_sees_all_of_its_files(whole_and_split, theta, how):
    repo, method = whole_and_split, ("--strategy", "ties", "-p", "density=0.3")
    results = []
    for kind, paths in (("whole", (WHOLE,)), ("split", PARTS)):
        repo.git("checkout", "-q", f"{kind}-one" if how != "several" else kind)
        if how == "git":
            repo.git("config", "theta.merge.strategy", "ties:density=0.3")
            repo.git("merge", "-q", f"{kind}-two")
        else:
            others = (f"{kind}-one", f"{kind}-two")[how == "theta" :]
            ok(theta(repo, "merge", *others, *method))
        results.append(merged(repo, *paths))
        assert is_settled(repo)
        if kind == "split":
            assert [shard["path"] for shard in recipe(repo, path=PARTS[0])["shards"]] == [PARTS[1]]
            said = ok(theta(repo, "replay"))
            assert said.count("the same bits") == 2
    whole, split = results
    assert whole.keys() == split.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(split[name], array)
    # Per tensor it would be another merge.
    assert sum(np.array_equal(whole[name], BASE[name]) for name in whole) > 0


def test_resolving_sees_all_files_too(whole_and_split, theta):
    repo = whole_and_split
    results = []
    for kind, paths in (("whole", (WHOLE,)), ("split", PARTS)):
        repo.git("checkout", "-q", f"{kind}-one")
        assert repo.process("merge", f"{kind}-two").returncode == 1
        ok(theta(repo, "resolve", *paths, "--strategy", "ties", "-p", "density=0.3"))
        repo.git("commit", "-q", "--no-edit")
        results.append(merged(repo, *paths))
    for name, array in results[0].items():
        np.testing.assert_array_equal(results[1][name], array)


def test_each_file_by_rules_of_its_own(once, home, model, theta):
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
    assert [
        rule["hyperparameters"]["density"] for rule in recipe(model, path=PARTS[0])["rules"]
    ] == [
        0.5,
        0.25,
    ]
    assert ok(theta(model, "replay")).count("the same bits") == 2


def test_where_the_other_files_are_not_known_it_is_said(whole_and_split, theta):
    """Each branch with the other's first commit merged: no commit has what they have in common."""
    repo = whole_and_split
    tips = [repo.git("rev-parse", f"split-{name}") for name in ("one", "two")]
    for name, other, seed in (("one", tips[1], 5), ("two", tips[0], 6)):
        repo.git("checkout", "-q", f"split-{name}")
        ok(theta(repo, "merge", other, "--strategy", "average"))
        repo.commit_files(files(tuned(seed, 0.01), split=True))
    said = ok(theta(repo, "merge", "split-one", "--strategy", "ties"))
    assert said.count("only this file of the model was scanned") == 2
    assert "shards" not in recipe(repo, path=PARTS[0])
    assert ok(theta(repo, "replay")).count("the same bits") == 2


def test_what_looks_at_tensors_alone_knows_nothing_of_other_files(whole_and_split, theta):
    repo = whole_and_split
    repo.git("checkout", "-q", "split-one")
    ok(theta(repo, "merge", "split-two", "--strategy", "ties", "-p", "scope=tensor"))
    assert "shards" not in recipe(repo, path=PARTS[0])
