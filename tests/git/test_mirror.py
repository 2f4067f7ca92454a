"""Mirrors and other repositories here: objects are found, carried, and stay protected."""

from __future__ import annotations

import shutil

import pytest

from tests.git.test_push_protection import (
    FIRST,
    PATH,
    SECOND,
    THIRD,
    is_whole,
    named_on,
    needed,
    objects_of,
    shared,
)
from tests.support.repo import Repo

__all__ = ["shared"]


# --- repositories on this machine ----------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_colleagues_working_repository(form, shared, tmp_path):
    """Its objects are in its own ``.git/theta``, which git-lfs does not serve."""
    clone = Repo.clone(form.format(shared.path), tmp_path / "clone")
    assert clone.read(PATH) == SECOND
    shared.commit_files({PATH: THIRD})
    clone.git("pull", "-q")
    assert clone.read(PATH) == THIRD
    clone.git("checkout", "-q", "HEAD~2")
    assert clone.read(PATH) == FIRST


def test_a_linked_work_tree_of_a_colleague(shared, tmp_path):
    shared.git("worktree", "add", "-q", "-b", "side", str(tmp_path / "linked"))
    clone = Repo.clone(tmp_path / "linked", tmp_path / "clone", "--branch=side")
    assert clone.read(PATH) == SECOND


def test_a_bare_repository_reads_its_own_lfs_storage(shared, remote, tmp_path):
    shared.git("push", "-q", "origin", "main")
    remote.git("worktree", "add", "-q", str(tmp_path / "deployed"), "main")
    assert (tmp_path / "deployed" / PATH).read_bytes() == SECOND
    folder = tmp_path / "checkout"
    folder.mkdir()
    remote.git(f"--work-tree={folder}", "checkout", "-q", "-f", "main~1", "--", ".")
    assert (folder / PATH).read_bytes() == FIRST
    remote.git("archive", f"--output={tmp_path / 'main.zip'}", "main", PATH)
    shutil.unpack_archive(tmp_path / "main.zip", tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / PATH).read_bytes() == SECOND


def test_a_repository_that_borrows_git_objects_borrows_ours(shared, remote, tmp_path):
    shared.git("push", "-q", "--no-verify", "origin", "main")
    clone = Repo.clone(remote.path, tmp_path / "clone", f"--reference={shared.path}")
    assert clone.read(PATH) == SECOND


# --- mirrors --------------------------------------------------------------------------------------


@pytest.fixture
def mirror(shared: Repo, remote: Repo, tmp_path, theta) -> Repo:
    """A mirror of the remote, with our hooks and none of its objects."""
    shared.git("push", "-q", "origin", "main")
    made = Repo.clone(remote.path, tmp_path / "mirror.git", "--mirror")
    assert theta(made, "install", "--local").returncode == 0
    assert not (made.path / "theta/objects").exists()
    return made


@pytest.fixture
def elsewhere(make_repo) -> Repo:
    return make_repo("elsewhere.git", "--bare")


@pytest.mark.parametrize("lfs", [False, True], ids=["", "beside git-lfs"])
def test_a_mirror_carries_everything_elsewhere(lfs, mirror, elsewhere, tmp_path):
    if lfs:
        mirror.git("lfs", "install", "--skip-repo")
    for _ in range(2):
        mirror.git("push", "-q", "--mirror", str(elsewhere.path))
        assert is_whole(elsewhere)
    assert Repo.clone(elsewhere.path, tmp_path / "clone").read(PATH) == SECOND


def test_a_mirror_pushed_without_our_hooks_is_made_whole(
    shared, remote, elsewhere, tmp_path, theta
):
    """Git alone carries no objects: clones of it say so, and one command sends them."""
    shared.git("push", "-q", "origin", "main")
    mirror = Repo.clone(remote.path, tmp_path / "mirror.git", "--mirror")
    assert not (mirror.path / "hooks/pre-push").exists()
    mirror.git("push", "-q", "--mirror", str(elsewhere.path))
    assert not is_whole(elsewhere)
    lost = mirror.process("clone", "-q", str(elsewhere.path), str(tmp_path / "lost"))
    assert lost.returncode != 0
    assert b"missing locally and on every remote" in lost.stderr
    assert theta(mirror, "doctor").returncode == 1
    lacking = theta(mirror, "fsck", "--remote", str(elsewhere.path))
    assert lacking.returncode == 1
    done = theta(mirror, "push", "--all", str(elsewhere.path))
    assert done.returncode == 0, done.stderr
    assert is_whole(elsewhere)
    assert Repo.clone(elsewhere.path, tmp_path / "clone").read(PATH) == SECOND


def test_a_mirror_carries_everything_over_http(mirror, server, tmp_path):
    url = server.repository()
    mirror.git("lfs", "install", "--skip-repo")
    mirror.git("push", "-q", "--mirror", url)
    assert Repo.clone(url, tmp_path / "clone").read(PATH) == SECOND


def test_a_mirror_without_the_objects_fails(mirror, remote, elsewhere):
    lost = sorted(needed(mirror, "main"))[0]
    for file in (remote.path / "lfs/objects").rglob(lost):
        file.unlink()
    done = mirror.process("push", "--mirror", str(elsewhere.path))
    assert done.returncode != 0
    assert lost[:12].encode() in done.stderr
    assert elsewhere.git("for-each-ref") == ""


def test_pointers_of_lost_objects_that_nothing_needs_are_no_obstacle(
    mirror, shared, remote, elsewhere
):
    shared.git("checkout", "-q", "-b", "gone")
    shared.commit_files({PATH: THIRD})
    shared.git("push", "-q", "origin", "gone")
    shared.git("push", "-q", "origin", ":gone")
    unneeded = needed(shared, "gone") - needed(shared, "main") - needed(shared, "main~1")
    for oid in unneeded:
        for file in (remote.path / "lfs/objects").rglob(oid):
            file.unlink()
    mirror.git("fetch", "-q")
    mirror.git("push", "-q", "--mirror", str(elsewhere.path))
    assert is_whole(elsewhere)


def test_mirroring_from_a_working_repository_takes_no_protection_away(shared, remote, tmp_path):
    """It deletes the pointer refs on the remote, its own and those of others."""
    shared.git("push", "-q", "origin", "main")
    colleague = Repo.clone(remote.path, tmp_path / "colleague")
    colleague.commit_files({PATH: THIRD})
    colleague.git("push", "-q", "origin", "main")
    shared.git("pull", "-q", "--ff-only", "origin", "main")
    for number in range(3):
        shared.git("push", "-q", "--mirror", "origin")
        wanted = needed(shared) | needed(shared, "HEAD~1") | needed(shared, "HEAD~2")
        assert wanted <= objects_of(remote), number
        assert wanted <= named_on(remote), number
