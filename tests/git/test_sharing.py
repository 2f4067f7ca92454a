"""Checkpoints between people: pushed, cloned and fetched, over every kind of remote."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from git_theta import manifest
from tests.support import checkpoints
from tests.support.repo import Repo

BASE = checkpoints.tensors(rows=64)
FIRST = checkpoints.safetensors(BASE)
SECOND = checkpoints.safetensors(checkpoints.finetuned(BASE))
THIRD = checkpoints.safetensors(checkpoints.finetuned(BASE, seed=2))


@pytest.fixture
def shared(model: Repo, remote: Repo) -> Repo:
    """A repository with two versions, on a bare remote that is named by its path."""
    model.commit_files({"model.safetensors": FIRST}, "base")
    model.commit_files({"model.safetensors": SECOND}, "fine-tune")
    model.git("remote", "add", "origin", str(remote.path))
    return model


def _needed(repo: Repo, rev: str = "HEAD", path: str = "model.safetensors") -> set[str]:
    text = repo.git("show", f"{rev}:{path}").encode() + b"\n"
    return set(manifest.parse(text).objects())


def _lfs_objects(repo: Repo) -> set[str]:
    return {path.name for path in (repo.path / "lfs/objects").rglob("*") if path.is_file()}


def _push(repo: Repo, *refs: str, force: bool = False) -> None:
    repo.git("push", "-q", *(["--force"] if force else []), "origin", *(refs or ["main"]))


def _clone(remote: Repo | str, path, *options: str) -> Repo:
    return Repo.clone(remote if isinstance(remote, str) else remote.path, path, *options)


def test_push_and_clone_over_a_path(shared, remote, tmp_path):
    _push(shared)
    assert _needed(shared) | _needed(shared, "HEAD~1") <= _lfs_objects(remote)
    clone = _clone(remote, tmp_path / "clone")
    assert clone.read("model.safetensors") == SECOND
    clone.git("checkout", "-q", "HEAD~1")
    assert clone.read("model.safetensors") == FIRST
    assert clone.git("status", "--porcelain") == ""


def test_push_and_clone_over_file_url(shared, remote, tmp_path):
    url = f"file://{remote.path}"
    shared.git("remote", "set-url", "origin", url)
    _push(shared)
    assert _clone(url, tmp_path / "clone").read("model.safetensors") == SECOND


def test_push_and_clone_over_http(model, server, tmp_path):
    url = server.repository()
    model.commit_files({"model.safetensors": FIRST, "b.pt": checkpoints.torch_zip(BASE)})
    model.commit_files({"model.safetensors": SECOND})
    model.git("remote", "add", "origin", url)
    _push(model)
    batches_before = sum(path.endswith("/objects/batch") for _, path in server.requests)
    clone = _clone(url, tmp_path / "clone")
    assert clone.read("model.safetensors") == SECOND
    assert clone.read("b.pt") == checkpoints.torch_zip(BASE)
    batches = sum(path.endswith("/objects/batch") for _, path in server.requests)
    assert batches - batches_before == 1  # all missing objects of all files at once
    clone.git("checkout", "-q", "HEAD~1")
    assert clone.read("model.safetensors") == FIRST


def test_every_uploaded_object_is_named_by_a_pointer_on_the_remote(shared, remote):
    _push(shared)
    blobs = [line.split()[0] for line in remote.git("rev-list", "--objects", "--all").splitlines()]
    named = set()
    for blob in blobs:
        if remote.git("cat-file", "-t", blob) == "blob":
            text = remote.git("cat-file", "blob", blob)
            if text.startswith("version https://git-lfs.github.com/spec/v1\n"):
                assert len(text) < 200
                named.add(text.splitlines()[1].removeprefix("oid sha256:"))
    assert named == _lfs_objects(remote)


def test_a_fresh_clone_can_push_at_once(shared, remote, tmp_path):
    _push(shared)
    clone = _clone(remote, tmp_path / "clone")
    clone.commit_files({"model.safetensors": THIRD})
    _push(clone)
    assert _needed(clone) <= _lfs_objects(remote)
    assert _clone(remote, tmp_path / "other").read("model.safetensors") == THIRD


def test_a_shallow_clone_works_and_pushes(shared, remote, tmp_path):
    _push(shared)
    clone = _clone(f"file://{remote.path}", tmp_path / "clone", "--depth=1")
    assert clone.read("model.safetensors") == SECOND
    clone.commit_files({"model.safetensors": THIRD})
    _push(clone)
    assert _clone(remote, tmp_path / "other").read("model.safetensors") == THIRD


def test_lfs_prune_before_the_first_push(shared, remote, tmp_path):
    shared.git("lfs", "prune", "--force")
    _push(shared)
    shared.git("lfs", "prune", "--force")
    shared.git("checkout", "-q", "HEAD~1")
    assert shared.read("model.safetensors") == FIRST
    assert _clone(remote, tmp_path / "clone").read("model.safetensors") == SECOND


def _someone_else(shared: Repo, remote: Repo, tmp_path) -> Repo:
    """A colleague who pushed another file to branch ``theirs``."""
    _push(shared)
    colleague = _clone(remote, tmp_path / "colleague")
    colleague.git("checkout", "-q", "-b", "theirs", "HEAD~1")
    colleague.commit_files({"other.safetensors": THIRD}, "theirs")
    _push(colleague, "theirs")
    shared.git("fetch", "-q", "origin")
    return colleague


def test_a_branch_made_by_merging_someone_elses_commits(shared, remote, tmp_path):
    _someone_else(shared, remote, tmp_path)
    elsewhere = Repo.init(tmp_path / "elsewhere.git", "--bare")
    shared.git("merge", "-q", "-m", "merge", "origin/theirs")
    assert shared.read("other.safetensors") == THIRD
    shared.git("remote", "add", "elsewhere", str(elsewhere.path))
    shared.git("push", "-q", "elsewhere", "main")
    clone = _clone(elsewhere, tmp_path / "clone")
    assert (clone.read("model.safetensors"), clone.read("other.safetensors")) == (SECOND, THIRD)


def test_objects_that_were_never_here_come_from_the_remote_that_has_them(shared, remote, tmp_path):
    _someone_else(shared, remote, tmp_path)
    elsewhere = Repo.init(tmp_path / "elsewhere.git", "--bare")
    shared.git("remote", "add", "elsewhere", str(elsewhere.path))
    # Never checked out here: its objects are on origin only.
    shared.git("push", "-q", "elsewhere", "origin/theirs:refs/heads/theirs")
    clone = _clone(elsewhere, tmp_path / "clone", "--branch=theirs")
    assert clone.read("other.safetensors") == THIRD


@pytest.mark.parametrize("command", ["rebase", "cherry-pick"])
def test_a_branch_made_by_rebase_or_cherry_pick(shared, remote, tmp_path, command):
    _someone_else(shared, remote, tmp_path)
    if command == "rebase":
        shared.git("checkout", "-q", "-b", "topic", "main~1")
        shared.commit_files({"topic.safetensors": SECOND}, "topic")
        shared.git("rebase", "-q", "origin/theirs")
    else:
        shared.git("checkout", "-q", "-b", "topic", "main")
        shared.git("cherry-pick", "origin/theirs")
    _push(shared, "topic")
    assert _needed(shared) <= _lfs_objects(remote)
    clone = _clone(remote, tmp_path / "clone", "--branch=topic")
    assert clone.read("other.safetensors") == THIRD


def test_two_pushes_at_once(shared, remote, tmp_path):
    _push(shared)
    clones = [_clone(remote, tmp_path / name) for name in ("a", "b")]
    for number, clone in enumerate(clones):
        clone.git("checkout", "-q", "-b", f"branch{number}")
        content = checkpoints.safetensors(checkpoints.finetuned(BASE, seed=10 + number))
        clone.commit_files({"model.safetensors": content})
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda pair: _push(pair[1], f"branch{pair[0]}"), enumerate(clones)))
    for number, clone in enumerate(clones):
        other = _clone(remote, tmp_path / f"c{number}", f"--branch=branch{number}")
        assert other.read("model.safetensors") == clone.read("model.safetensors")


def test_a_push_that_cannot_upload_does_not_move_the_branch(shared, remote):
    oid = sorted(_needed(shared))[0]
    lost = shared.path / ".git/theta/objects" / oid[:2] / oid
    lost.unlink()
    done = shared.process("push", "origin", "main")
    assert done.returncode != 0
    assert oid[:12].encode() in done.stderr
    assert remote.git("for-each-ref", "refs/heads") == ""


def test_a_host_that_is_full_does_not_move_the_branch(model, server):
    url = server.repository()
    model.commit_files({"model.safetensors": FIRST})
    model.git("remote", "add", "origin", url)
    server.refuse["/lfs/"] = "507 Insufficient Storage"
    server.refuse["objects/batch"] = "507 Insufficient Storage"
    done = model.process("push", "origin", "main")
    assert done.returncode != 0
    assert "main" not in model.git("ls-remote", "origin")


def test_a_clone_without_the_objects_says_what_is_missing(shared, remote, tmp_path):
    _push(shared)
    shutil.rmtree(remote.path / "lfs")
    done = subprocess.run(
        ["git", "clone", str(remote.path), str(tmp_path / "clone")],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0
    assert b"model.safetensors" in done.stderr
    assert b"missing locally and on every remote" in done.stderr
    assert not (tmp_path / "clone/model.safetensors").exists()


def test_a_submodule(shared, remote, make_repo, tmp_path):
    _push(shared)
    outer = make_repo("outer")
    outer.git("submodule", "add", "-q", str(remote.path), "inner")
    assert outer.read("inner/model.safetensors") == SECOND
    outer.commit("second")
    inner = Repo(outer.path / "inner")
    inner.commit_files({"model.safetensors": THIRD})
    inner.git("push", "-q", "origin", "HEAD:main")
    outer.git("add", "inner")
    outer.commit("third")
    for commit, content in (("HEAD~1", SECOND), ("main", THIRD)):
        outer.git("checkout", "-q", "--recurse-submodules", commit)
        assert outer.read("inner/model.safetensors") == content
    clone = _clone(outer.path.as_posix(), tmp_path / "clone", "--recurse-submodules")
    assert clone.read("inner/model.safetensors") == THIRD
    assert clone.git("status", "--porcelain") == ""


def test_pull(shared, remote, tmp_path):
    _push(shared)
    clone = _clone(remote, tmp_path / "clone")
    shared.commit_files({"model.safetensors": THIRD})
    _push(shared)
    clone.git("pull", "-q")
    assert clone.read("model.safetensors") == THIRD
