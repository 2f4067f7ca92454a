"""What git holds on to beside refs: nothing of it is collected, nothing stale is in the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from git_theta.errors import LockedError
from git_theta.git import Repository, reachable
from tests.support.repo import Repo


@pytest.fixture
def found(repo: Repo) -> Iterator[Repository]:
    with Repository.discover(repo.path) as opened:
        yield opened


def _blob(repo: Repo, text: bytes) -> str:
    return repo.git("hash-object", "--stdin", stdin=text)


def _held(found: Repository) -> set[str]:
    return {entry.blob for entry in reachable.all_entries(found)}


def _forget(repo: Repo) -> None:
    repo.git("reflog", "expire", "--expire=now", "--all")


@pytest.fixture
def diverged(repo: Repo) -> Repo:
    """Two branches that conflict in ``a``, and uncommitted work in ``b``."""
    repo.commit(a=b"base", b=b"b")
    repo.git("checkout", "-q", "-b", "other")
    repo.commit(a=b"theirs")
    repo.git("checkout", "-q", "main")
    repo.commit(a=b"ours")
    repo.write("b", b"uncommitted")
    return repo


@pytest.mark.parametrize(
    "operation",
    [
        ("rebase", "--autostash", "other"),
        ("rebase", "--apply", "--autostash", "other"),
        ("merge", "--autostash", "other"),
    ],
    ids=["rebase", "apply", "merge"],
)
def test_uncommitted_work_that_an_operation_put_away(diverged, found, operation):
    assert diverged.process(*operation).returncode != 0, "a conflict"
    assert diverged.read("b") == b"b"
    _forget(diverged)
    assert _blob(diverged, b"uncommitted") in _held(found)
    diverged.git(operation[0], "--abort")
    assert diverged.read("b") == b"uncommitted"


def test_a_bisect_in_another_work_tree(repo, found, tmp_path):
    repo.commit(a=b"good")
    second = Repo(tmp_path / "second")
    repo.git("worktree", "add", "-q", "--detach", str(second.path))
    bad = second.commit(a=b"bad, and on no branch")
    second.git("checkout", "-q", "main~0")
    second.git("update-ref", "refs/bisect/bad", bad)
    _forget(repo)
    assert _blob(repo, b"bad, and on no branch") in _held(found)


@pytest.mark.parametrize("name", ["index.stash.123", "next-index-123.lock", "index.lock"])
def test_an_index_that_git_has_for_a_while(repo, found, name):
    repo.commit(a=b"a")
    repo.write("a", b"only in that index")
    file = repo.path / ".git" / name
    repo.git("read-tree", "HEAD", env={"GIT_INDEX_FILE": str(repo.path / ".git/made")})
    repo.git("add", "a", env={"GIT_INDEX_FILE": str(repo.path / ".git/made")})
    (repo.path / ".git/made").rename(file)
    assert _blob(repo, b"only in that index") in _held(found)


def test_an_index_that_is_half_written(repo, found):
    repo.commit(a=b"a")
    lock = repo.path / ".git/index.lock"
    lock.write_bytes(b"")
    assert _held(found), "a merge that has only begun"
    lock.write_bytes((repo.path / ".git/index").read_bytes()[:-1])
    with pytest.raises(LockedError, match=r"index\.lock"):
        _held(found)


class TestStale:
    """`git gc` does not keep what these name, nor what lies behind it."""

    @pytest.mark.parametrize("name", ["ORIG_HEAD", "FETCH_HEAD", "CHERRY_PICK_HEAD"])
    def test_what_is_pruned(self, repo, found, name):
        repo.commit(a=b"kept")
        gone = repo.commit(a=b"gone")
        repo.git("reset", "-q", "--hard", "HEAD~1")
        _forget(repo)
        Path(repo.path / ".git/ORIG_HEAD").unlink()
        repo.git("gc", "-q", "--prune=now")
        (repo.path / ".git" / name).write_text(f"{gone}\n")
        assert _held(found) == {_blob(repo, b"kept")}

    def test_what_is_pruned_in_part(self, repo, found):
        repo.commit(a=b"kept")
        middle = repo.commit(a=b"gone")
        last = repo.commit(a=b"still there")
        repo.git("reset", "-q", "--hard", "HEAD~2")
        _forget(repo)
        (repo.path / ".git/objects" / middle[:2] / middle[2:]).unlink()
        (repo.path / ".git/ORIG_HEAD").write_text(f"{last}\n")
        assert _held(found) >= {_blob(repo, b"kept"), _blob(repo, b"still there")}

    def test_a_broken_branch_is_an_error(self, repo, found):
        repo.commit(a=b"a")
        last = repo.commit(a=b"b")
        parent = repo.git("rev-parse", "HEAD~1")
        (repo.path / ".git/objects" / parent[:2] / parent[2:]).unlink()
        assert last
        with pytest.raises(Exception, match="rev-list failed"):
            _held(found)


def test_what_a_remote_has_can_be_left_out(repo, found):
    repo.commit(a=b"pushed")
    repo.git("update-ref", "refs/remotes/origin/main", "HEAD")
    repo.commit(a=b"here only")
    repo.commit(a=b"reset away")
    repo.git("reset", "-q", "--hard", "HEAD~1")
    left = {entry.blob for entry in reachable.all_entries(found, ["--remotes"])}
    assert left == {_blob(repo, b"here only"), _blob(repo, b"reset away")}


def test_a_partial_clone_fetches_nothing(repo, tmp_path):
    repo.commit(a=b"old")
    repo.commit(a=b"new")
    repo.git("config", "uploadpack.allowFilter", "true")
    clone = Repo.clone(repo.path.as_uri(), tmp_path / "clone", "--filter=blob:none")
    with Repository.discover(clone.path) as opened:
        assert {entry.blob for entry in reachable.all_entries(opened)} == {_blob(repo, b"new")}
    missing = clone.git("rev-list", "--objects", "--all", "--missing=print")
    assert f"?{_blob(repo, b'old')}" in missing


def test_what_is_staged_in_any_work_tree(repo, found, tmp_path):
    repo.commit(a=b"a", b=b"b")
    second = Repo(tmp_path / "second")
    repo.git("worktree", "add", "-q", "--detach", str(second.path))
    second.write("a", b"staged there")
    second.git("add", "a")
    repo.write("b", b"staged here")
    repo.git("add", "b")
    staged = {entry.blob for entry in reachable.staged(found)}
    assert staged == {_blob(repo, b"staged there"), _blob(repo, b"staged here")}
