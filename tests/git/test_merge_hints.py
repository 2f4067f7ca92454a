"""Hints about conflicts are commands that work as they stand."""

from __future__ import annotations

import re

import numpy as np
import pytest
from safetensors.numpy import load

from tests.support import checkpoints
from tests.support.branches import PATH, branch, commit, is_settled
from tests.support.repo import Repo

BASE = {
    "w": np.zeros((4, 4), np.float32),
    "step": np.array([1], np.int64),
    "layer.0.seen": np.array([1], np.int32),
    "q.weight": np.ones((4, 4), np.int8),
    "q.weight_scale": np.ones(4, np.float32),
    "grown": np.zeros((2, 4), np.float32),
    "half": np.zeros((4, 4), np.float32),
}


def side(number: int) -> bytes:
    """Every kind of conflict, and one tensor that any strategy merges."""
    made = {name: a + a.dtype.type(number) for name, a in BASE.items()}
    made["grown"] = np.full((3, 4), number, np.float32)
    if number == 2:
        made["half"] = made["half"].astype(np.float16)
    return checkpoints.safetensors(made)


@pytest.fixture
def branches(once, home, model) -> Repo:
    def work() -> None:
        commit(model, checkpoints.safetensors(BASE), "base")
        branch(model, "one", side(1))
        branch(model, "two", side(2))

    once("hints", home, model, work)
    model.git("checkout", "-q", "one")
    return model


def hint_of(text: str) -> list[str]:
    """The words of the command in a hint, with what it leaves open filled in."""
    (line,) = re.findall(r"hint: (git theta .*)", text)
    sides = re.search(r", where SIDE is ([^,]+),", line)
    left = r"( \((git theta strategies lists them|or --deleted remove)\))?(, where SIDE is .*)?$"
    command = re.sub(left, "", line).replace("SIDE", sides[1] if sides else "")
    return command.replace("NAME", "average")


def follow(repo: Repo, done, theta) -> None:
    """Run the command of each hint until there is none left."""
    import shlex

    for _ in range(3):
        if done.returncode == 0:
            return
        git, name, *words = shlex.split(hint_of(done.stderr))
        assert (git, name) == ("git", "theta")
        done = theta(repo, *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "typed", [["--strategy", "average", "-p", "weight=[3,1]"], [], ["--widen", "--rule", "w=ties"]]
)
def test_following_the_hints_of_a_merge_in_conflict(branches, theta, typed):
    done = theta(branches, "merge", "two", *typed)
    assert done.returncode != 0
    follow(branches, done, theta)
    branches.git("commit", "-q", "--no-edit")
    assert is_settled(branches)
    merged = load(branches.read(PATH))
    # What the user asked for holds for what could be merged from the start.
    assert merged["w"][0, 0] == {4: 1.25, 0: 1.5, 3: 1.5}[len(typed)]
    assert merged["step"] == 2  # ours
    assert merged["half"].dtype == np.float32


def test_following_the_hint_of_a_merge_that_changed_nothing(branches, theta):
    branches.git("checkout", "-q", "main")
    done = theta(branches, "merge", "one", "two", "--strategy", "average")
    assert "nothing was changed" in done.stderr
    follow(branches, done, theta)
    assert is_settled(branches)
    assert load(branches.read(PATH))["w"][0, 0] == 1.5


@pytest.fixture
def broken(branches) -> Repo:
    """A third branch, on which a tensor of its own trained to NaN."""
    branches.git("checkout", "-q", "main")
    branch(branches, "broken", checkpoints.safetensors(BASE | {"w": BASE["w"] + np.nan}))
    return branches


def test_following_the_hint_about_nan_where_nothing_was_changed(broken, theta_here):
    words = ("merge", "one", "broken", "--strategy", "average", "-p", "weight=[3,1]")
    done = theta_here(broken, *words, "-o", "merged.safetensors")
    assert "w has NaN in an input of the merge" in done.stderr
    assert hint_of(done.stderr).endswith("--allow-nan")
    # The file is the one of this command; what the hint repeats is the merge.
    follow(broken, done, theta_here)
    merged = load(broken.read(PATH))
    assert np.isnan(merged["w"]).all()
    assert merged["grown"].shape == (3, 4)


def test_following_the_hints_about_nan_after_a_conflict(broken, theta):
    """The merge is git's by then: the command that began it would refuse."""
    broken.git("checkout", "-q", "one")
    broken.git("merge", "-q", "--no-commit", "-s", "ours", "main")
    branch_of = {name: a for name, a in BASE.items() if name != "grown"}
    broken.git("checkout", "-q", "broken")
    commit(
        broken,
        checkpoints.safetensors(branch_of | {"w": BASE["w"] + np.nan, "step": BASE["step"] + 5}),
    )
    broken.git("checkout", "-q", "one")
    done = theta(broken, "merge", "broken", "--strategy", "average")
    assert done.returncode != 0
    follow(broken, done, theta)
    broken.git("commit", "-q", "--no-edit")
    assert is_settled(broken)
    assert np.isnan(load(broken.read(PATH))["w"]).all()


def test_following_the_hint_about_a_checkpoint_that_a_branch_deleted(branches, theta_here):
    branches.git("checkout", "-q", "main")
    branches.git("checkout", "-q", "-b", "gone")
    branches.git("rm", "-q", PATH)
    branches.git("commit", "-q", "-m", "gone")
    branches.git("checkout", "-q", "main")
    done = theta_here(branches, "merge", "one", "gone", "--strategy", "average")
    assert "git cannot merge these files of the branches: model.safetensors" in done.stderr
    assert hint_of(done.stderr) == "git theta merge one gone --strategy average --deleted keep"
    follow(branches, done, theta_here)
    assert load(branches.read(PATH))["w"][0, 0] == 1
