"""`git theta blame` in a history with merges and renames."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.support import checkpoints
from tests.support.repo import Repo

PATH = "model.safetensors"
RANDOM = np.random.default_rng(4)
NAMES = [f"layer.{at}.weight" for at in (0, 1, 2, 10)]
BASE = {name: RANDOM.standard_normal((16, 24)).astype(np.float32) for name in NAMES}
SIDES = [{**BASE, "layer.0.weight": BASE["layer.0.weight"] + 1} for _ in range(2)]
for _side, _own in zip(SIDES, ("layer.1.weight", "layer.10.weight"), strict=True):
    for _name in ("layer.2.weight", _own):
        _noise = RANDOM.standard_normal((16, 24)).astype(np.float32)
        _side[_name] = BASE[_name] + np.float32(0.1) * _noise


def merged(*weights: float) -> dict[str, np.ndarray]:
    """Each side's own tensor, and a sum of both where both changed it."""
    found = {**SIDES[0], "layer.10.weight": SIDES[1]["layer.10.weight"]}
    base = BASE["layer.2.weight"].astype(np.float64)
    changes = [w * (side["layer.2.weight"] - base) for w, side in zip(weights, SIDES, strict=True)]
    return {**found, "layer.2.weight": (base + sum(changes)).astype(np.float32)}


@pytest.fixture
def history(once, home, model) -> Repo:
    """One, then two sides that both add 1 to layer 0, their merge, and a file renamed."""

    def work() -> None:
        model.commit("One", **{PATH: checkpoints.safetensors(BASE)})
        model.git("tag", "one")
        model.git("branch", "side")
        model.commit("Ours", **{PATH: checkpoints.safetensors(SIDES[0])})
        model.git("checkout", "-q", "side")
        model.commit("Theirs", **{PATH: checkpoints.safetensors(SIDES[1])})
        model.git("checkout", "-q", "main")
        merge(model, 0.5, 0.5)
        model.git("mv", PATH, "moved.safetensors")
        model.commit("Move", **{"notes.txt": b"x"})

    once("blame history", home, model, work)
    return model


def merge(repo: Repo, *weights: float) -> None:
    repo.git("merge", "-q", "--no-commit", "-s", "ours", "side")
    repo.commit("Both", **{PATH: checkpoints.safetensors(merged(*weights))})


def blamed(theta_here, repo: Repo, *args: str) -> dict[str, dict[str, Any]]:
    done = theta_here(repo, "blame", "--json", *args)
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_each_tensor_has_the_commit_that_changed_it_last(history, theta_here):
    for file in (history.path / ".git/theta/objects").rglob("*"):
        if file.is_file():
            file.unlink()  # manifests are enough
    found = blamed(theta_here, history, "moved.safetensors", "--all")
    assert {name: row["subject"] for name, row in found.items()} == {
        "layer.0.weight": "Ours",  # both sides have it: the first parent counts
        "layer.1.weight": "Ours",
        "layer.2.weight": "Both",
        "layer.10.weight": "Theirs",
    }
    assert [*found] == NAMES
    row = found["layer.10.weight"]
    assert row["commit"] == history.git("rev-parse", "side")
    assert (row["path"], row["shares"]) == (PATH, None)
    assert row["parents"] == [history.git("rev-parse", "one")]
    assert row["date"] == history.git("log", "-1", "--format=%aI", "side")


def test_groups_revisions_and_globs(history, theta_here):
    lines = theta_here(history, "blame", "moved.safetensors").stdout.splitlines()
    assert lines[0].split() == ["COMMIT", "DATE", "AUTHOR", "TENSOR", "PATH", "SUBJECT"]
    assert len(lines) == 4
    assert "layer.*.weight (2)" in lines[1]
    assert lines[1].endswith("Ours")
    first = blamed(theta_here, history, "one", "--", PATH)
    assert [(name, row["subject"]) for name, row in first.items()] == [("layer.*.weight", "One")]
    assert first["layer.*.weight"]["tensors"] == NAMES
    for args in (
        ("side", PATH, "*.1?.weight"),
        ("side", "--", PATH, "*.1?.weight"),
    ):
        assert [row["subject"] for row in blamed(theta_here, history, *args).values()] == ["Theirs"]


def test_porcelain(history, theta_here):
    lines = theta_here(history, "blame", "moved.safetensors", "--porcelain").stdout.splitlines()
    fields = [line.split("\t") for line in lines]
    assert [row[4] for row in fields] == NAMES
    commit, date, author = history.git("log", "-1", "--format=%H%x09%aI%x09%an", "side").split("\t")
    assert fields[3] == [commit, date, author, PATH, "layer.10.weight"]


def test_renamed_tensors_are_followed(history, theta_here):
    arrays = {f"model.{name}": array for name, array in merged(0.5, 0.5).items()}
    history.commit("Prefix", **{"moved.safetensors": checkpoints.safetensors(arrays)})
    found = blamed(theta_here, history, "moved.safetensors", "--all")
    assert [row["subject"] for row in found.values()] == ["Ours", "Ours", "Both", "Theirs"]
    assert found["model.layer.2.weight"]["names"] == ["layer.2.weight"]


def test_shares_are_the_weights_of_the_merge(history, theta_here):
    weights = (1.0, 0.3)
    history.git("reset", "-q", "--hard", "HEAD~2")
    merge(history, *weights)
    found = blamed(theta_here, history, PATH, "--shares", "--all")
    assert found["layer.2.weight"]["shares"] == pytest.approx(weights, abs=1e-5)
    assert found["layer.10.weight"]["shares"] is None
    said = theta_here(history, "blame", PATH, "--shares").stdout
    parent = history.git("rev-parse", "side")[:12]
    assert f"{parent} {weights[1]:.2f}" in said
    last = theta_here(history, "blame", PATH, "--shares", "--porcelain").stdout.splitlines()[2]
    first, second = map(float, last.split("\t")[5].split(","))
    assert (first, second) == pytest.approx(weights, abs=1e-4)


def test_mistakes_are_told(history, theta_here):
    for args, words in (
        ((), "one checkpoint is needed"),
        (("notes.txt",), "not stored by git-theta"),
        (("nowhere", "--", PATH), "no such revision"),
        (("moved.safetensors", "nothing.*"), "no tensor of moved.safetensors matches"),
    ):
        done = theta_here(history, "blame", *args)
        assert done.returncode in (2, 22), done.stderr
        assert words in done.stderr
