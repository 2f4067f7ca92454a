"""What branches and checkpoints cost is what a collection gets back without them."""

from __future__ import annotations

import json

import pytest

from tests.support import checkpoints
from tests.support.repo import Repo

ARRAYS = checkpoints.tensors(rows=64)
BASE = checkpoints.safetensors(ARRAYS)
TUNED = [checkpoints.safetensors(checkpoints.finetuned(ARRAYS, seed=n)) for n in (1, 2)]


@pytest.fixture
def branches(model: Repo) -> Repo:
    model.commit_files({"m.safetensors": BASE, "copy.safetensors": BASE})
    model.git("switch", "-q", "-c", "side")
    model.commit_files({"m.safetensors": TUNED[0]})
    model.git("tag", "v1")
    model.git("switch", "-q", "main")
    model.commit_files({"m.safetensors": TUNED[1]})
    return model


def rows(theta, repo: Repo, *args: str) -> dict[str, dict]:
    done = theta(repo, "du", "--json", *args)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {", ".join(row["names"]): row for row in (*found["rows"], found["total"])}


def test_a_branch_frees_what_it_says(branches, theta):
    found = rows(theta, branches, "--all")
    assert set(found) == {"main", "side, tags/v1", "all"}
    side, total = found["side, tags/v1"], found["all"]
    assert side["exclusive"] + side["shared"] == side["size"]
    assert total["size"] == found["main"]["exclusive"] + side["size"] == total["here"]
    branches.git("branch", "-q", "-D", "side")
    branches.git("tag", "-d", "v1")
    branches.git("reflog", "expire", "--expire=now", "--all")
    done = theta(branches, "gc", "--older-than", "0", "--json")
    assert json.loads(done.stdout)["size"] == side["exclusive"] > 0
    assert rows(theta, branches, "--all")["all"]["size"] == total["size"] - side["exclusive"]


def test_equal_checkpoints_share_everything(branches, theta):
    found = rows(theta, branches, "HEAD~1")
    assert found["m.safetensors"] == {**found["copy.safetensors"], "names": ["m.safetensors"]}
    assert found["m.safetensors"]["exclusive"] == 0
    now = rows(theta, branches)
    assert now["m.safetensors"]["exclusive"] > 0
    assert now["copy.safetensors"]["exclusive"] == 0
    shown = theta(branches, "du").stdout.splitlines()
    assert shown[0].split() == ["objects", "bytes", "exclusive", "shared", "here"]
    assert [line.split()[0] for line in shown[1:]] == ["m.safetensors", "copy.safetensors", "all"]
    assert theta(branches, "du", "--all", "HEAD").returncode == 2
