"""What a remote names for nothing is named no longer; what any of its refs needs is."""

from __future__ import annotations

import json

import pytest

from git_theta.git import pointer_refs, pointers
from git_theta.git.repository import Repository
from tests.support import checkpoints
from tests.support.repo import Repo

ARRAYS = checkpoints.tensors(rows=64)
PATH = "model.safetensors"
MAIN = checkpoints.safetensors(ARRAYS)
SIDE = checkpoints.safetensors(checkpoints.finetuned(ARRAYS))
OTHER = checkpoints.safetensors(checkpoints.tensors(rows=64, seed=5))


@pytest.fixture
def pushed(model: Repo, remote: Repo) -> Repo:
    """Branches main and side on a remote."""
    model.git("remote", "add", "origin", str(remote.path))
    model.commit_files({PATH: MAIN})
    model.git("push", "-q", "origin", "main")
    model.git("switch", "-q", "-c", "side")
    model.commit_files({PATH: SIDE})
    model.git("push", "-q", "origin", "side")
    return model


def named(remote: Repo) -> set[str]:
    refs = remote.git("for-each-ref", "--format=%(refname)", "refs/theta").split()
    with Repository.discover(remote.path) as found:
        return {oid for ref in refs for oid in pointers.read_commit(found, ref) or ()}


def collect(theta_here, repo: Repo, *args: str) -> dict:
    done = theta_here(repo, "remote-gc", "origin", "--json", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_objects_of_a_deleted_branch(pushed, remote, theta_here, tmp_path):
    before = named(remote)
    assert collect(theta_here, pushed)["objects"] == {}
    pushed.git("push", "-q", "origin", ":side")
    listed = collect(theta_here, pushed, "--dry-run")
    assert (named(remote), len(listed["refs"])) == (before, 1)
    assert collect(theta_here, pushed) == listed
    assert named(remote) == before - listed["objects"].keys()
    assert 0 < len(named(remote)) < len(before)
    assert collect(theta_here, pushed)["objects"] == {}
    # Pushed once more, they are named again.
    pushed.git("push", "-q", "origin", "side")
    assert named(remote) == before
    clone = Repo.clone(remote.path, tmp_path / "clone", "--branch=side")
    assert clone.read(PATH) == SIDE


def test_a_branch_that_was_never_fetched_here(pushed, remote, theta_here, tmp_path):
    colleague = Repo.clone(remote.path, tmp_path / "colleague")
    colleague.git("switch", "-q", "-c", "theirs")
    colleague.commit_files({PATH: OTHER})
    colleague.git("push", "-q", "origin", "HEAD:refs/pull/1/head")
    before = named(remote)
    assert collect(theta_here, pushed) == {
        "remote": "origin", "objects": {}, "refs": [], "named": len(before)
    }  # fmt: skip
    assert named(remote) == before
    shallow = Repo.clone(f"file://{remote.path}", tmp_path / "shallow", "--depth=1")
    done = theta_here(shallow, "remote-gc", "origin")
    assert (done.returncode, "--unshallow" in done.stderr) == (2, True)


def test_a_remote_where_nothing_is_needed(pushed, remote, theta_here):
    remote.git("update-ref", "-d", "refs/heads/main")
    remote.git("update-ref", "-d", "refs/heads/side")
    assert len(collect(theta_here, pushed)["refs"]) == 2
    assert remote.git("for-each-ref") == ""


def test_what_is_pushed_meanwhile_is_named_again(pushed, remote, theta_here, monkeypatch):
    before = named(remote)
    pushed.git("push", "-q", "origin", ":side")
    real = pointer_refs.fold

    def late(*args, **options):
        # Somebody brings the branch back, when branches were looked at: its objects are named yet.
        pushed.git("push", "-q", "origin", "side")
        assert named(remote) == before
        return real(*args, **options)

    monkeypatch.setattr(pointer_refs, "fold", late)
    assert collect(theta_here, pushed)["objects"]
    assert named(remote) == before


def test_pointers_that_change_meanwhile_are_left_alone(pushed, remote, theta_here, monkeypatch):
    pushed.git("push", "-q", "origin", ":side")
    real = pointer_refs._push

    def late(repo, *args, **options):
        monkeypatch.setattr(pointer_refs, "_push", real)
        for ref in remote.git("for-each-ref", "--format=%(refname)", "refs/theta").split():
            remote.git("update-ref", ref, "refs/heads/main")
        real(repo, *args, **options)

    monkeypatch.setattr(pointer_refs, "_push", late)
    done = theta_here(pushed, "remote-gc", "origin")
    assert done.returncode != 0
    assert "meanwhile" in done.stderr
    assert len(remote.git("for-each-ref", "refs/theta").splitlines()) == 2
