"""Models merged by what their statistics say, from git's point of view."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from safetensors.numpy import load
from safetensors.torch import save_file
from torch import nn

from git_theta import stats
from tests.support import checkpoints
from tests.support.branches import is_settled, recipe

PATH, FISHER = "model.safetensors", "model.fisher.safetensors"


def inputs(seed: int) -> torch.Tensor:
    return torch.randn(20, 6, generator=torch.Generator().manual_seed(seed))


def ok(done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def classifiers(once, home, model):
    """Two branches with a classifier each, both from main's, and its Fisher information."""

    def commit(name: str, seed: int, *, with_statistics: bool = True) -> None:
        model.git("checkout", "-q", "-B", name, "main")
        torch.manual_seed(seed)
        layer = nn.Linear(6, 3)
        save_file(layer.state_dict(), model.path / PATH)
        if with_statistics:
            stats.fisher(layer, [inputs(seed)], labels="exact").save(model.path / PATH)
        model.git("add", ".")
        model.git("commit", "-q", "-m", name)

    def work() -> None:
        commit("main", 0, with_statistics=False)
        commit("one", 1)
        commit("two", 2)
        commit("bare", 3, with_statistics=False)
        model.git("checkout", "-q", "one")

    once("classifiers", home, model, work)
    return model


def at(repo, branch: str, path: str) -> dict[str, np.ndarray]:
    repo.git("checkout", "-q", branch)
    return load(repo.read(path))


def test_statistics_that_nobody_has(classifiers, theta):
    """Without any Gram matrix a merge by them would be an average that is called otherwise."""
    for method in ("fisher", "regmean"):
        classifiers.git("checkout", "-q", "one")
        done = theta(classifiers, "merge", "bare", "two", "--strategy", method)
        kind = "fisher" if method == "fisher" else "gram"
        assert done.returncode
        assert f"{method} needs the {kind} statistics of" in done.stderr
        assert f"git_theta.stats.{kind}(model, batches).save(" in done.stderr


def test_a_merge_by_fisher_information_and_its_replay(classifiers, theta, theta_here):
    sides = [
        (at(classifiers, name, PATH), at(classifiers, name, FISHER)) for name in ("two", "one")
    ]
    ok(theta(classifiers, "merge", "two", "--strategy", "fisher", "-p", "normalize=false"))
    merged = load(classifiers.read(PATH))
    for name in ("weight", "bias"):
        known = [np.maximum(information[name].astype(np.float64), 1e-6) for _, information in sides]
        top = sum(f * model[name] for f, (model, _) in zip(known, sides, strict=True))
        np.testing.assert_allclose(merged[name], top / sum(known), rtol=1e-5, atol=1e-7)
        information = load(classifiers.read(FISHER))[name]
        np.testing.assert_allclose(
            information, (sides[0][1][name] + sides[1][1][name]) / 2, rtol=1e-6
        )
    assert is_settled(classifiers)
    (rule,) = recipe(classifiers)["rules"]
    assert rule["strategy"] == "fisher"
    assert all("statistics" in side for side in recipe(classifiers)["contributors"])
    assert recipe(classifiers, path=FISHER)["rules"][0]["strategy"] == "average"
    said = ok(theta_here(classifiers, "replay"))
    assert f"{PATH}: the same bits" in said
    assert f"{FISHER}: the same bits" in said


def test_a_missing_statistic_names_the_call_that_makes_it(classifiers, theta):
    done = theta(classifiers, "merge", "bare", "--strategy", "fisher")
    assert done.returncode
    assert "fisher needs the fisher statistics of bare" in done.stderr
    assert f'git_theta.stats.fisher(model, batches).save("{PATH}")' in done.stderr


def test_statistics_are_in_conflict_where_nothing_says_how_to_merge(classifiers):
    done = classifiers.process("merge", "two")
    assert done.returncode == 1
    assert sorted(classifiers.git("diff", "--name-only", "--diff-filter=U").split()) == [
        FISHER,
        PATH,
    ]


def test_rules_that_name_their_path_hold(classifiers):
    classifiers.write(
        ".theta.toml",
        b'[[merge.rules]]\nmatch = "*"\npath = "*.fisher.safetensors"\nstrategy = "take"\n'
        b'side = "theirs"\n',
    )
    classifiers.git("config", "theta.merge.strategy", "average")
    theirs = at(classifiers, "two", FISHER)
    classifiers.git("checkout", "-q", "one")
    classifiers.git("merge", "-q", "two")
    merged = load(classifiers.read(FISHER))
    assert all(np.array_equal(merged[name], theirs[name]) for name in theirs)


def test_statistics_of_another_version_of_the_model(classifiers, theta, theta_here):
    """The model was trained on, the Fisher information beside it was not computed again."""
    trained = load(classifiers.read(PATH))
    trained["weight"] = trained["weight"] + np.float32(1)
    classifiers.commit_files({PATH: checkpoints.safetensors(trained)})
    typed = ("merge", "two", "--strategy", "fisher")
    done = theta(classifiers, *typed)
    assert done.returncode == 34, done.stderr
    assert "the fisher statistics of one were computed on another version" in done.stderr
    assert is_settled(classifiers)
    (hint,) = re.findall(r"hint: git theta (.*)", done.stderr)
    assert hint == "merge two --strategy fisher --allow-stale"
    ok(theta(classifiers, *hint.split()))
    assert "the same bits" in ok(theta_here(classifiers, "replay"))


def test_after_git_merge_the_hint_resolves_what_is_in_conflict(classifiers, theta_here):
    trained = load(classifiers.read(PATH))
    trained["weight"] = trained["weight"] + np.float32(1)
    classifiers.commit_files({PATH: checkpoints.safetensors(trained)})
    classifiers.git("config", "theta.merge.strategy", "fisher")
    done = classifiers.process("merge", "two")
    assert done.returncode
    (hint,) = re.findall(r"hint: git theta (.*)", done.stderr.decode())
    assert hint == f"resolve {PATH} --allow-stale"
    ok(theta_here(classifiers, *hint.split()))
    classifiers.git("commit", "-q", "--no-edit")
    assert is_settled(classifiers)
