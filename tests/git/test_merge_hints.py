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


def typed(repo: Repo, done) -> str:
    """Run what follows ``hint:`` in a shell, as it stands; return what it prints."""
    import os
    import subprocess
    import sys
    from pathlib import Path

    (line,) = re.findall(r"hint: (git .*)", done.stderr)
    command = re.sub(r" \(or .*\)$", "", line)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["sh", "-c", command],
        cwd=repo.path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{ran.returncode} {ran.stdout}{ran.stderr}"


def test_a_tensor_that_cannot_hold_the_result(once, home, model, theta):
    """Before the commit, and after git has left the file in conflict."""
    name = "layer.0.it's[0]"
    for branch_name, number in (("main", 1), ("one", 3e4), ("two", 4e4)):
        model.git("checkout", "-q", "-B", branch_name, "main")
        made = {name: np.full((4, 4), number, np.float16), "w": np.full(4, number, np.float32)}
        commit(model, checkpoints.safetensors(made))
    model.git("checkout", "-q", "one")
    words = ("two", "--strategy", "task_arithmetic")
    done = theta(model, "merge", *words)
    assert "cannot hold the result" in done.stderr
    assert typed(model, done).startswith("0 ")
    merged = load(model.read(PATH))
    assert (merged[name] == 3e4).all()
    assert (merged["w"] == 7e4 - 1).all()
    model.git("reset", "-q", "--hard", "HEAD^")
    model.git("config", "theta.merge.strategy", "task_arithmetic")
    failed = model.process("merge", "two")
    done.stderr = failed.stderr.decode()
    assert typed(model, done).startswith("0 ")
    assert (load(model.read(PATH))[name] == 3e4).all()


def test_other_files_that_git_cannot_merge(branches, theta_here):
    for name in ("one", "two"):
        branches.git("checkout", "-q", name)
        branches.commit_files({"a b.txt": name.encode()})
    branches.git("checkout", "-q", "main")
    done = theta_here(branches, "merge", "one", "two", "--rule", "*=take:side=two")
    assert "git cannot merge these files of the branches: a b.txt; nothing was ch" in done.stderr
    assert "CONFLICT (add/add)" in typed(branches, done)
    assert branches.git("rev-parse", "MERGE_HEAD") == branches.git("rev-parse", "two")
    branches.git("merge", "--abort")
    branches.git("checkout", "-q", "one")
    base = branches.git("merge-base", "one", "two")
    done = theta_here(branches, "merge", "two", "--base", base, "--rule", "*=take:side=ours")
    assert typed(branches, done).startswith("0 ")
    assert branches.read("a b.txt") == b"two"
    assert is_settled(branches)


def test_an_empty_file_on_one_side(branches, theta_here):
    branches.git("checkout", "-q", "two")
    commit(branches, b"")
    branches.git("checkout", "-q", "one")
    done = theta_here(branches, "merge", "two")
    assert "two has an empty file here" in done.stderr
    said = typed(branches, done)
    assert "two has an empty file here" in said
    done.stderr = said
    assert typed(branches, done).startswith("0 ")
    branches.git("commit", "-q", "--no-edit")
    assert load(branches.read(PATH))["w"][0, 0] == 1
    assert is_settled(branches)


def test_what_no_strategy_can_merge_is_taken_at_once(branches, theta):
    """Without a strategy, too: one that merges integers was asked for, and does not exist."""
    done = branches.process("merge", "two")
    hint = re.search(r"hint: git theta (.*), where SIDE", done.stderr.decode())[1]
    assert "--rule step=take:side=SIDE" in hint
    assert "--rule w=" not in hint
    follow(branches, type(done)((), 1, "", done.stderr.decode()), theta)
    assert load(branches.read(PATH))["w"][0, 0] == 1.5
