"""Branches whose older commits hold whole files or LFS pointers under a path that is ours now."""

from __future__ import annotations

import os
import shutil

import pytest
from safetensors.numpy import load

from tests.support import checkpoints
from tests.support.repo import Repo

ARRAYS = checkpoints.tensors(rows=64)
FIRST = checkpoints.safetensors(ARRAYS)
MOVED = checkpoints.finetuned(ARRAYS)


def mixed(*layers: int) -> bytes:
    """The checkpoint with some layers moved: what two people change merges without a strategy."""
    moved = tuple(f"layer.{layer}." for layer in layers)
    return checkpoints.safetensors(
        {name: (MOVED if name.startswith(moved) else ARRAYS)[name] for name in ARRAYS}
    )


TUNED = [mixed(0), mixed(1)]
LFS = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
M = "m.safetensors"


@pytest.fixture(params=["whole", "pointer"])
def old(request, once, home, model: Repo) -> Repo:
    """``main`` tracks what it holds the old way; ``tuned`` and ``theirs`` changed it with us."""
    if request.param == "pointer":
        model.git("lfs", "install", "--skip-repo")
    ours = model.read(".gitattributes")
    before = LFS if request.param == "pointer" else b""
    model.commit_files({".gitattributes": before, M: FIRST}, "the old way")
    model.commit_files({".gitattributes": ours}, "tracked")
    for name, content in zip(("tuned", "theirs"), TUNED, strict=True):
        model.git("switch", "-q", "-c", name, "main")
        model.commit_files({M: content}, name)
    model.git("switch", "-q", "main")
    return model


def touch(repo: Repo) -> None:
    os.utime(repo.path / M)
    (repo.path / ".git/index").touch()


def is_old(repo: Repo, rev: str) -> bool:
    return not repo.process("cat-file", "blob", f"{rev}:{M}").stdout.startswith(b'{"git-theta"')


def test_it_is_not_modified_until_it_is_or_is_renormalized(old):
    assert is_old(old, "HEAD")
    assert old.read(M) == FIRST
    for rev in ("tuned", "main", "main~1", "main"):
        touch(old)
        assert old.git("status", "--porcelain") == ""
        old.git("switch", "-q", "--detach", rev)
    old.git("switch", "-q", "main")
    touch(old)
    old.git("add", M)
    assert old.git("status", "--porcelain") == ""
    old.write(M, TUNED[0])
    assert old.git("status", "--porcelain") == f" M {M}"
    old.git("add", M)
    assert not is_old(old, "")
    old.git("reset", "-q", "--hard")
    assert old.read(M) == FIRST
    old.git("add", "--renormalize", M)
    assert not is_old(old, "")
    old.git("commit", "-q", "-m", "ours")
    old.git("switch", "-q", "--detach", "HEAD~1")
    assert old.read(M) == FIRST
    old.git("switch", "-q", "main")
    assert old.read(M) == FIRST
    assert old.git("status", "--porcelain") == ""


@pytest.fixture
def colleague(old: Repo) -> Repo:
    """``colleague`` changes it the old way; ``tuned`` is checked out."""
    old.git("switch", "-q", "-c", "colleague", "main~1")
    old.commit_files({M: TUNED[1]}, "the old way, by somebody else")
    assert is_old(old, "HEAD")
    old.git("switch", "-q", "tuned")
    return old


def test_it_is_compared_and_merged_as_what_it_is(colleague, theta):
    old = colleague
    shown = theta(old, "diff", "main", "tuned").stdout
    assert "2 of 4 tensors changed" in shown
    assert old.git("diff", "main", "tuned", "--", M).splitlines() == shown.splitlines()
    assert "layer.*.weight (2)" in old.git("log", "-1", "-p", "colleague", "--", M)
    plan = theta(old, "merge", "--dry-run", "colleague").stdout
    assert "2 from colleague" in plan
    done = old.process("merge", "-q", "-m", "merge", "colleague")
    assert done.returncode == 0, done.stderr
    merged = load(old.read(M))
    assert all((merged[name] == MOVED[name]).all() for name in ARRAYS)
    assert not is_old(old, "HEAD")


def test_checkout_of_a_side_leaves_a_file(old, theta):
    old.git("switch", "-q", "-c", "older", "main")
    old.git("rm", "-q", "--cached", M)
    blob = old.git("rev-parse", f"main:{M}")
    old.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{M}")
    old.git("switch", "-q", "tuned")
    base = old.git("rev-parse", f"theirs:{M}")
    sides = {1: base, 2: old.git("rev-parse", f"tuned:{M}"), 3: blob}
    records = "".join(f"100644 {id_} {stage}\t{M}\n" for stage, id_ in sides.items())
    old.git("update-index", "--index-info", stdin=f"0 {'0' * 40}\t{M}\n{records}".encode())
    old.git("checkout", "--theirs", M)
    assert old.read(M) == FIRST
    old.git("checkout", "--ours", M)
    assert old.read(M) == TUNED[0]
    shutil.rmtree(old.path / ".git/lfs/objects", ignore_errors=True)
    old.process("checkout", "--theirs", M)
    assert (old.path / M).exists()


def test_a_file_that_only_lies_on_a_remote_is_fetched(old, remote, tmp_path, monkeypatch):
    if not old.process("cat-file", "blob", f"main:{M}").stdout.startswith(b"version"):
        pytest.skip("Git has the file itself")
    old.git("remote", "add", "origin", str(remote.path))
    old.git("push", "-q", "origin", "main")
    clone = Repo.clone(remote.path, tmp_path / "clone")
    assert clone.read(M) == FIRST
    assert clone.git("status", "--porcelain") == ""
