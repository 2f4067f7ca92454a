"""What branches and checkpoints cost is what a collection gets back without them."""

from __future__ import annotations

import json

import pytest

from git_theta.cli.text import human
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


def test_commits_with_the_same_checkpoints_stand_in_one_row(branches, theta_here):
    first = branches.git("rev-parse", "HEAD~1")
    branches.commit_files({"folder/README": b"about it"}, "describe")
    found = json.loads(theta_here(branches, "du", "--commits", "--json").stdout)
    newest, oldest = found["rows"]
    assert newest["names"][1:] == ["1 commit after it"]
    assert oldest["names"] == [f"{first[:12]} change"]
    assert found["total"]["size"] == newest["exclusive"] + oldest["size"]
    # The fine-tune is stored as a change of the base, so it needs all of that.
    assert (oldest["exclusive"], newest["shared"]) == (0, oldest["size"])


def test_a_remote_is_asked_what_is_there(branches, server, theta_here):
    branches.git("remote", "add", "origin", server.repository())
    branches.git("push", "-q", "origin", "main~1:refs/heads/main")
    found = json.loads(theta_here(branches, "du", "--all", "--remote", "origin", "--json").stdout)
    sizes = {oid: path.stat().st_size for oid, path in server.objects().items()}
    total = found["total"]
    assert 0 < total["there"] == sum(sizes.values()) < total["size"] == total["here"]
    shown = theta_here(branches, "du", "--remote", "origin").stdout.splitlines()
    assert shown[0].endswith("here  on the remote")


def test_frames_that_nothing_reads_any_more(model, theta_here):
    """A pack stays whole as long as one of its frames is needed."""
    model.commit_files({"m.safetensors": BASE})
    arrays = checkpoints.finetuned(ARRAYS, seed=3)
    first = sorted(arrays)[0]
    model.commit_files({"m.safetensors": checkpoints.safetensors({**arrays, first: ARRAYS[first]})})
    before = json.loads(theta_here(model, "du", "--all", "--json").stdout)
    assert before["unused"] == 0
    model.git("rm", "-q", "m.safetensors")
    model.git("checkout", "-q", "--orphan", "squashed")
    model.commit_files({"m.safetensors": checkpoints.safetensors({first: ARRAYS[first]})})
    model.git("branch", "-q", "-D", "main")
    after = json.loads(theta_here(model, "du", "--all", "--json").stdout)
    assert 0 < after["unused"] < after["total"]["size"]

    # Who asks git-theta to repack them, as git does, is told what that would be worth.
    stored = sorted((model.path / ".git/theta/objects").rglob("*"))
    done = theta_here(model, "gc", "--repack")
    assert done.returncode == 2
    assert f"{human(after['unused'])} of {human(after['total']['here'])} here" in done.stderr
    assert "git theta prune --remote-verified" in done.stderr
    assert sorted((model.path / ".git/theta/objects").rglob("*")) == stored
