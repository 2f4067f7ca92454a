"""Objects go only where a remote has them, and come back when they are needed."""

from __future__ import annotations

import json

import pytest

from git_theta import manifest
from tests.support import checkpoints
from tests.support.repo import Repo

PATH = "model.safetensors"
VERSIONS = [
    checkpoints.safetensors(checkpoints.tensors(rows=rows, seed=rows)) for rows in (64, 65, 66)
]
NOW = ("--remote-verified", "--recent", "0")


@pytest.fixture
def pushed(model: Repo, server) -> Repo:
    """Three versions on a server, none of which needs objects of another."""
    model.git("remote", "add", "origin", server.repository())
    for version in VERSIONS:
        model.commit_files({PATH: version})
    model.git("push", "-q", "origin", "main")
    return model


def needed(repo: Repo, rev: str) -> set[str]:
    return set(manifest.parse(repo.git("show", f"{rev}:{PATH}").encode() + b"\n").objects())


def here(repo: Repo) -> set[str]:
    return {file.name for file in (repo.path / ".git/theta/objects").glob("*/*")}


def prune(theta_here, repo: Repo, *args: str) -> dict:
    done = theta_here(repo, "prune", "--json", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_old_versions_go_once_the_remote_was_asked_and_come_back(pushed, theta_here):
    before = here(pushed)
    shown = theta_here(pushed, "prune", "--recent", "0").stdout
    assert "2 objects would be removed" in shown
    assert "git theta prune --remote-verified" in shown
    asked = prune(theta_here, pushed, *NOW, "--dry-run")
    assert here(pushed) == before
    assert prune(theta_here, pushed, *NOW) == asked
    assert set(asked["oids"]) == (needed(pushed, "HEAD~2") | needed(pushed, "HEAD~1"))
    assert here(pushed) == needed(pushed, "HEAD")
    assert theta_here(pushed, "fsck").returncode == 0
    pushed.git("checkout", "-q", "HEAD~2")
    assert pushed.read(PATH) == VERSIONS[0]
    assert prune(theta_here, pushed, *NOW)["oids"] == sorted(needed(pushed, "main"))


def test_what_the_host_has_deleted_stays(pushed, server, theta_here):
    # A remote that is this repository itself has no copy, whatever it says.
    pushed.git("remote", "add", "self", ".")
    pushed.git("fetch", "-q", "self")
    found = prune(theta_here, pushed, *NOW, "--remote", "self")
    assert (found["oids"], found["unsafe"]) == ([], 2)
    assert theta_here(pushed, "prune", "--remote", "nowhere").returncode == 2
    (lost,) = needed(pushed, "HEAD~2")
    server.objects()[lost].unlink()
    found = prune(theta_here, pushed, *NOW, "--remote", "origin")
    assert found["oids"] == sorted(needed(pushed, "HEAD~1"))
    assert (found["unsafe"], lost in here(pushed)) == (1, True)


def test_what_is_in_use_stays(pushed, theta_here, tmp_path):
    """Recent commits, the commit of another work tree, what is staged, and a stash."""
    assert prune(theta_here, pushed, "--remote-verified", "--recent", "99999")["oids"] == []
    pushed.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"), "HEAD~1")
    pushed.git("checkout", "-q", "HEAD~2")
    assert prune(theta_here, pushed, *NOW)["oids"] == sorted(needed(pushed, "main"))
    assert needed(pushed, "main~1") | needed(pushed, "main~2") == here(pushed)
    pushed.git("fetch", "-q")
    pushed.commit_files({"other.safetensors": VERSIONS[2]})
    pushed.git("mv", "other.safetensors", "staged.safetensors")
    pushed.git("stash", "push", "-q")
    pushed.git("reset", "-q", "--hard", "HEAD~1")
    assert prune(theta_here, pushed, *NOW)["oids"] == []
    assert Repo(tmp_path / "linked").git("status", "--porcelain") == ""


def test_what_was_not_pushed_stays(pushed, theta_here):
    """Whether or not the server has its objects: it may delete what no branch there needs."""
    pushed.git("push", "-q", "--force", "origin", "main~2:main")
    assert prune(theta_here, pushed, *NOW)["oids"] == sorted(needed(pushed, "main~2"))


def test_a_damaged_copy_in_a_folder_is_none(model, remote, theta_here):
    model.git("remote", "add", "origin", str(remote.path))
    for version in VERSIONS[:2]:
        model.commit_files({PATH: version})
    model.git("push", "-q", "origin", "main")
    (oid,) = needed(model, "HEAD~1")
    copy = remote.path / "lfs/objects" / oid[:2] / oid[2:4] / oid
    content = copy.read_bytes()
    copy.unlink()
    copy.write_bytes(content[:-1] + b"?")
    assert prune(theta_here, model, *NOW)["oids"] == []
    copy.write_bytes(content)
    assert prune(theta_here, model, *NOW)["oids"] == [oid]
