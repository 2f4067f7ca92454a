"""Clones that share a store: through git alone, by several clones, on this and another disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import checkpoints
from tests.support.repo import Repo

ARRAYS = checkpoints.tensors(rows=64)
FIRST = checkpoints.safetensors(ARRAYS)
SECOND = checkpoints.safetensors(checkpoints.finetuned(ARRAYS))
PATH = "model.safetensors"


@pytest.fixture
def pool(model: Repo, tmp_path: Path) -> Path:
    """A shared store on the same disk, for everything that the user does."""
    folder = tmp_path / "pool"
    folder.mkdir()
    model.git("config", "--global", "theta.sharedStore", str(folder))
    return folder


@pytest.fixture
def elsewhere(model: Repo) -> Iterator[Path]:
    """A shared store on another disk, where no hard link leads."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        if Path(folder).stat().st_dev == model.path.stat().st_dev:
            pytest.skip("/dev/shm is on the same disk")
        model.git("config", "--global", "theta.sharedStore", folder)
        yield Path(folder)


def objects(repo: Repo) -> dict[str, Path]:
    return {file.name: file for file in (repo.path / ".git/theta/objects").glob("*/*")}


def shared(pool: Path) -> dict[str, Path]:
    return {file.name: file for file in (pool / "objects").glob("*/*")}


def test_clones_and_gc(model, pool, server, theta_here, tmp_path):
    model.commit_files({PATH: FIRST})
    model.git("remote", "add", "origin", server.repository())
    model.git("push", "-q", "origin", "main")
    before = len(server.requests)
    clone = Repo.clone(server.url + "/team/model.git", tmp_path / "clone")
    assert clone.read(PATH) == FIRST
    assert not any("/objects" in path for _, path in server.requests[before:])
    (oid,) = objects(model)
    assert objects(model)[oid].samefile(objects(clone)[oid])
    assert objects(model)[oid].samefile(shared(pool)[oid])

    # Another one stores the same by itself; a collection here takes nothing from there.
    clone.commit_files({PATH: SECOND})
    model.commit_files({PATH: SECOND})
    new = objects(model).keys() - {oid}
    assert objects(clone).keys() == objects(model).keys() == shared(pool).keys()
    model.git("reset", "-q", "--hard", "HEAD~1")
    model.git("update-ref", "-d", "ORIG_HEAD")
    model.git("reflog", "expire", "--expire=now", "--all")
    done = theta_here(model, "gc", "--older-than", "0")
    assert done.stdout.startswith("1 object removed")
    assert "shared store" not in done.stdout
    assert theta_here(clone, "fsck").returncode == 0
    shutil.rmtree(clone.path)
    done = theta_here(model, "gc", "--older-than", "0")
    assert "1 object removed from the shared store" in done.stdout
    assert shared(pool).keys() == {oid} == shared(pool).keys() - new


def test_what_was_stored_before_is_shared_by_gc(model, tmp_path, theta_here):
    model.commit_files({PATH: FIRST})
    pool = tmp_path / "pool"
    pool.mkdir()
    model.git("config", "theta.sharedStore", str(pool))
    theta_here(model, "gc")
    assert {oid: file.stat().st_ino for oid, file in objects(model).items()} == {
        oid: file.stat().st_ino for oid, file in shared(pool).items()
    }


def test_on_another_disk_it_is_read_in_place(model, elsewhere, theta_here, tmp_path):
    model.commit_files({PATH: FIRST})
    clone = Repo.clone(model.path, tmp_path / "clone")
    assert clone.read(PATH) == FIRST
    (oid,) = objects(model)
    assert all(objects(repo)[oid].is_symlink() for repo in (model, clone))
    assert len(list((elsewhere / "clones").iterdir())) == 2
    model.git("update-ref", "-d", "HEAD")
    model.git("rm", "-q", "--cached", PATH)
    model.git("reflog", "expire", "--expire=now", "--all")
    assert theta_here(model, "gc", "--older-than", "0").stdout.startswith("1 object removed (")
    assert shared(elsewhere).keys() == {oid}
    clone.write(PATH, b"")
    clone.git("checkout", "-q", PATH)
    assert clone.read(PATH) == FIRST
    assert theta_here(clone, "fsck").returncode == 0
    # It goes to a remote like any other.
    remote = Repo.init(tmp_path / "remote.git", "--bare")
    clone.git("push", "-q", str(remote.path), "HEAD:main")
    file = remote.path / "lfs/objects" / oid[:2] / oid[2:4] / oid
    assert file.is_file()
    assert not file.is_symlink()


def test_a_store_that_lost_everything_is_no_loss(model, pool, server, tmp_path):
    model.commit_files({PATH: FIRST})
    shutil.rmtree(pool)
    model.write(PATH, b"")
    model.git("checkout", "-q", PATH)
    assert model.read(PATH) == FIRST
    model.commit_files({PATH: SECOND})


def test_a_repository_may_not_choose_one(model, tmp_path, theta_here):
    model.write(".theta.toml", f'sharedStore = "{tmp_path}"\n'.encode())
    done = theta_here(model, "doctor")
    assert "a repository may not set it" in done.stdout + done.stderr
    model.commit_files({PATH: FIRST})
    assert not (tmp_path / "objects").exists()


def test_a_clone_with_reference_and_a_work_tree(model, remote, tmp_path):
    """Objects of a repository that Git objects are borrowed from are linked, not downloaded."""
    model.commit_files({PATH: FIRST})
    model.git("remote", "add", "origin", str(remote.path))
    model.git("push", "-q", "origin", "main")
    shutil.rmtree(remote.path / "lfs")
    clone = Repo.clone(remote.path, tmp_path / "clone", f"--reference={model.path}")
    assert clone.read(PATH) == FIRST
    (oid,) = objects(model)
    assert objects(clone)[oid].samefile(objects(model)[oid])
    clone.git("worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    assert (tmp_path / "linked" / PATH).read_bytes() == FIRST
    assert len(objects(clone)) == 1
