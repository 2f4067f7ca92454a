"""One file from a remote, without a clone, over HTTP and from a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import checkpoints
from tests.support.repo import Repo
from tests.support.servers import Server

ARRAYS = checkpoints.tensors(rows=64)
OLD, NEW = checkpoints.safetensors(ARRAYS), checkpoints.safetensors(checkpoints.finetuned(ARRAYS))
OTHER = checkpoints.safetensors(checkpoints.tensors(seed=9))


@pytest.fixture
def pushed(model: Repo) -> Repo:
    model.commit_files({"sub/m.safetensors": OLD, "other.safetensors": OTHER, "README": b"plain"})
    model.git("tag", "v1")
    model.commit_files({"sub/m.safetensors": NEW})
    return model


def test_a_version_comes_over_http_with_nothing_else(pushed, theta, server: Server, tmp_path):
    url = server.repository()
    server.bare().git("config", "uploadpack.allowFilter", "true")
    pushed.git("push", "-q", url, "main", "v1")
    asked = len(server.requests)
    here = Repo(tmp_path)
    done = theta(here, "fetch-file", url, "v1", "sub/m.safetensors", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_bytes() == OLD
    needed = sum("objects/storage" in path for method, path in server.requests[asked:])
    assert 0 < needed < len(server.objects())
    assert theta(here, "fetch-file", url, "main", "README").returncode == 0
    assert (tmp_path / "README").read_bytes() == b"plain"
    assert not list(tmp_path.glob(".git-theta-*"))


def test_from_a_folder_and_what_is_not_there(pushed, theta, remote: Repo, tmp_path: Path):
    pushed.git("push", "-q", str(remote.path), "main", "v1")
    here = Repo(tmp_path)
    done = theta(here, "fetch-file", "remote.git", "main", "sub/m.safetensors")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "m.safetensors").read_bytes() == NEW
    for rev, path, code, words in (
        ("v2", "README", 33, "v2 cannot be fetched"),
        ("main", "sub", 2, "no such file"),
        ("main", "*.safetensors", 2, "no such file"),
        ("--upload-pack=x", "README", 2, "is not a branch"),
    ):
        done = theta(here, "fetch-file", "--", "remote.git", rev, path)
        assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    for file in (remote.path / "lfs").rglob("*"):
        if file.is_file():
            file.unlink()
    (tmp_path / "m.safetensors").write_bytes(b"mine")
    done = theta(here, "fetch-file", "remote.git", "v1", "sub/m.safetensors")
    assert done.returncode == 20
    assert (tmp_path / "m.safetensors").read_bytes() == b"mine"
