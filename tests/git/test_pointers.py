"""Pointer refs on real remotes: canonical, free of conflicts, folded when there are many."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from git_theta.errors import TransferError
from git_theta.git import Repository, pointers
from tests.support.repo import Repo


def objects(*names: str) -> dict[str, int]:
    return {hashlib.sha256(name.encode()).hexdigest(): 1000 + len(name) for name in names}


@pytest.fixture
def here(repo: Repo, remote: Repo):
    repo.git("remote", "add", "origin", str(remote.path))
    with Repository.discover(repo.path) as found:
        yield found


@pytest.fixture
def elsewhere(make_repo, remote: Repo):
    """Someone else, with the same remote."""
    made = make_repo("elsewhere")
    made.git("remote", "add", "origin", str(remote.path))
    with Repository.discover(made.path) as found:
        yield found


def refs(remote: Repo) -> list[str]:
    return remote.git("for-each-ref", "--format=%(refname)").splitlines()


def named(remote: Repo) -> dict[str, int]:
    """Every object that a pointer in the remote's refs names."""
    found = {}
    for ref in refs(remote):
        for line in remote.git("ls-tree", "-r", "--format=%(objectname) %(path)", ref).splitlines():
            blob, path = line.split(" ")
            text = remote.git("cat-file", "blob", blob) + "\n"
            version, oid, size = text.splitlines()
            assert version == "version https://git-lfs.github.com/spec/v1"
            assert path.endswith(oid.removeprefix("oid sha256:"))
            found[oid.removeprefix("oid sha256:")] = int(size.removeprefix("size "))
    return found


def test_the_text_is_what_git_lfs_writes(repo: Repo):
    content = b"some weights"
    written = repo.git("lfs", "clean", "--", "x", stdin=content) + "\n"
    oid = hashlib.sha256(content).hexdigest()
    assert pointers.pointer_text(oid, len(content)) == written.encode()


def test_objects_are_named_by_canonical_pointers(here, remote):
    wanted = objects("a", "b", "c")
    ref = pointers.publish(here, "origin", wanted)
    assert refs(remote) == [ref]
    assert ref.startswith("refs/theta/objects/")
    assert named(remote) == wanted
    assert remote.git("fsck", "--strict") == ""


def test_the_ref_and_its_commit_follow_from_the_objects_alone(
    here, elsewhere, remote, make_repo, monkeypatch
):
    first = pointers.publish(here, "origin", objects("a", "b"))
    commit = remote.git("rev-parse", first)
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody Else")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "1700000000 +0100")
    assert pointers.publish(elsewhere, "origin", objects("b", "a")) == first
    assert remote.git("rev-parse", first) == commit


def test_what_was_published_is_not_published_again(here, remote):
    pointers.publish(here, "origin", objects("a", "b"))
    assert pointers.publish(here, "origin", objects("a")) is None
    ref = pointers.publish(here, "origin", objects("a", "c"))
    assert remote.git("ls-tree", "-r", "--name-only", ref).count("\n") == 0
    assert named(remote) == objects("a", "b", "c")


def test_a_remote_that_lost_its_refs_gets_them_again(here, remote):
    ref = pointers.publish(here, "origin", objects("a"))
    remote.git("update-ref", "-d", ref)
    assert pointers.publish(here, "origin", objects("a")) == ref


def test_each_remote_counts_for_itself(here, remote, make_repo):
    other = make_repo("other.git", "--bare")
    pointers.publish(here, "origin", objects("a"))
    pointers.publish(here, str(other.path), objects("a"))
    assert refs(other) == refs(remote)


def test_a_remote_that_is_fetched_from_elsewhere(repo, here, remote, make_repo, monkeypatch):
    monkeypatch.setattr(pointers, "FOLD_ABOVE", 2)
    mirror = make_repo("mirror.git", "--bare")
    repo.git("remote", "set-url", "--push", "origin", str(mirror.path))
    for name in "abc":
        pointers.publish(here, "origin", objects(name))
    assert len(refs(mirror)) == 1
    assert named(mirror) == objects("a", "b", "c")
    assert refs(remote) == []


def test_nothing_stays_behind_in_the_own_repository(repo, here):
    pointers.publish(here, "origin", objects("a"))
    assert repo.git("for-each-ref") == ""
    assert repo.git("status", "--porcelain") == ""


def test_pushes_at_once_do_not_collide(here, remote, tmp_path):
    clones = [Repo.clone(remote.path, tmp_path / f"clone{number}") for number in range(6)]

    def publish(number: int) -> None:
        with Repository.discover(clones[number].path) as repo:
            pointers.publish(repo, "origin", objects("shared", f"own {number // 2}"))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(publish, range(6)))
    assert named(remote) == objects("shared", *(f"own {number}" for number in range(3)))


def test_many_refs_become_one(here, elsewhere, remote, monkeypatch):
    monkeypatch.setattr(pointers, "FOLD_ABOVE", 3)
    names = ["a", "b", "c", "d"]
    for name in names[:2]:
        pointers.publish(here, "origin", objects(name))
    pointers.publish(elsewhere, "origin", objects("c"))
    assert len(refs(remote)) == 3
    pointers.publish(here, "origin", objects("d"))
    assert len(refs(remote)) == 1
    assert named(remote) == objects(*names)
    # The one who folded knows what is in it; another one does not, and is not harmed.
    assert pointers.publish(here, "origin", objects("a", "c")) is None
    pointers.publish(elsewhere, "origin", objects("c"))
    assert named(remote) == objects(*names)


def test_folding_a_folded_remote_changes_nothing(here, remote):
    pointers.publish(here, "origin", objects("a", "b"))
    before = refs(remote)
    assert pointers.fold(here, "origin")
    assert refs(remote) == before


def test_who_folds_second_leaves_it(here, remote, monkeypatch):
    for name in "abc":
        pointers.publish(here, "origin", objects(name))
    real_push = pointers._push

    def push_late(repo, *args, **options):
        # Between our look at the remote and our push, someone else folds.
        monkeypatch.setattr(pointers, "_push", real_push)
        assert pointers.fold(here, "origin")
        real_push(repo, *args, **options)

    monkeypatch.setattr(pointers, "_push", push_late)
    assert not pointers.fold(here, "origin")
    assert len(refs(remote)) == 1
    assert named(remote) == objects("a", "b", "c")


def test_settings_for_ordinary_pushes_do_not_get_in_the_way(repo, here, remote):
    repo.commit()
    repo.git("tag", "-a", "-m", "tag", "v1")
    for key, value in {
        "push.followTags": "true",
        "push.recurseSubmodules": "check",
        "remote.origin.mirror": "true",
    }.items():
        repo.git("config", key, value)
    hook = repo.path / ".git/hooks/pre-push"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    ref = pointers.publish(here, "origin", objects("a"))
    assert refs(remote) == [ref]


def test_a_host_that_refuses_is_named_with_the_way_out(here, remote):
    hook = remote.path / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho only branches, please >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(TransferError, match="only branches, please") as caught:
        pointers.publish(here, "origin", objects("a"))
    assert "theta.pointers false" in caught.value.hint
    assert refs(remote) == []


def test_a_remote_that_is_not_there(here, tmp_path: Path):
    with pytest.raises(TransferError, match="nowhere"):
        pointers.publish(here, str(tmp_path / "nowhere"), objects("a"))


def test_an_unreadable_memory_is_only_forgotten(here, remote):
    ref = pointers.publish(here, "origin", objects("a"))
    (here.theta_dir / "published" / ref.rpartition("/")[2]).write_bytes(b"\xff\xfe")
    assert pointers.publish(here, "origin", objects("a")) == ref


def test_repositories_with_sha256_names(make_repo):
    bare = make_repo("remote256.git", "--bare", "--object-format=sha256")
    made = make_repo("repo256", "--object-format=sha256")
    with Repository.discover(made.path) as repo:
        pointers.publish(repo, str(bare.path), objects("a", "b"))
    assert named(bare) == objects("a", "b")


def test_over_http(repo, server):
    url = server.repository()
    with Repository.discover(repo.path) as here:
        pointers.publish(here, url, objects("a"))
        pointers.publish(here, url, objects("b"))
        assert pointers.fold(here, url)
    assert named(server.bare()) == objects("a", "b")
    assert len(refs(server.bare())) == 1
