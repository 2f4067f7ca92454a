"""After a checkout git knows what was just written; it is not read again."""

from __future__ import annotations

import time
from threading import Timer

import pytest

from git_theta.errors import LockedError
from git_theta.filters import deferred
from git_theta.git import index_file, index_stats, worktree
from git_theta.workspace import open_workspace
from tests.support import checkpoints
from tests.support.repo import Repo

SECOND = 10**9
NAME = "model.safetensors"
CONTENT = checkpoints.safetensors(checkpoints.tensors(rows=64))


@pytest.fixture
def stub(model: Repo) -> Repo:
    """A repository whose checkpoint was checked out as its manifest."""
    model.commit_files({NAME: CONTENT})
    (model.path / NAME).unlink()
    model.git("-c", "theta.smudge=false", "checkout", "-q", "--", NAME)
    return model


def _filters(repo: Repo, *command: str) -> tuple[str, int]:
    """What a git command prints, and how many files it had filtered."""
    done = repo.process(*command, env={"GIT_TRACE_PACKET": "1"})
    assert done.returncode == 0
    return done.stdout.decode(), done.stderr.count(b"command=clean")


def test_git_filters_the_file_no_more(stub, monkeypatch):
    monkeypatch.chdir(stub.path)
    asked = list[str]()
    monkeypatch.setattr(worktree, "refresh", lambda repo, paths: asked.extend(paths))
    began = time.time_ns() - SECOND
    monkeypatch.setattr(deferred.time, "time_ns", lambda: began)
    with open_workspace() as workspace:
        deferred.checkout_deferred(workspace, [NAME])
    assert asked == []
    assert (stub.path / NAME).read_bytes() == CONTENT
    assert (stub.path / NAME).stat().st_mtime_ns == began
    assert _filters(stub, "status", "--porcelain") == ("", 0)
    (stub.path / NAME).write_bytes(CONTENT[::-1])
    assert _filters(stub, "status", "--porcelain") == (f" M {NAME}\n", 1)


def test_git_reads_what_was_written_to_before_it_was_told(stub, monkeypatch):
    monkeypatch.chdir(stub.path)
    record, began = index_stats.record, time.time_ns() - SECOND
    monkeypatch.setattr(deferred.time, "time_ns", lambda: began)

    def late(index, written):
        (stub.path / NAME).write_bytes(CONTENT[::-1])
        return record(index, written)

    monkeypatch.setattr(index_stats, "record", late)
    with open_workspace() as workspace:
        deferred.checkout_deferred(workspace, [NAME])
    assert (stub.path / NAME).read_bytes() == CONTENT[::-1]
    assert stub.git("status", "--porcelain") == f" M {NAME}"  # and not added


@pytest.mark.parametrize("began", [0, -SECOND], ids=["read by git", "recorded"])
def test_another_command_that_keeps_the_index_locked_is_waited_for(began, stub, monkeypatch):
    """An editor's `git status`, say: the file was modified for good."""
    monkeypatch.chdir(stub.path)
    began += time.time_ns()
    monkeypatch.setattr(deferred.time, "time_ns", lambda: began)
    lock = stub.write(".git/index.lock", b"")
    Timer(0.2, lock.unlink).start()
    with open_workspace() as workspace:
        deferred.checkout_deferred(workspace, [NAME])
    assert (stub.path / NAME).read_bytes() == CONTENT
    assert stub.git("status", "--porcelain") == ""


def test_an_index_that_stays_locked_is_named_with_the_way_out(stub, monkeypatch):
    monkeypatch.chdir(stub.path)
    monkeypatch.setattr(index_file, "PATIENCE", 0.1)
    lock = stub.write(".git/index.lock", b"")
    with open_workspace() as workspace, pytest.raises(LockedError) as caught:
        deferred.checkout_deferred(workspace, [NAME])
    assert caught.value.path == str(lock)
    assert (stub.path / NAME).read_bytes() == CONTENT
    lock.unlink()
    stub.git(*caught.value.hint.partition(": git ")[2].split())
    assert stub.git("status", "--porcelain") == ""


def test_git_does_not_read_again_what_it_has_just_written(model):
    """A file of the same second as the index: each first command after a checkout read it."""
    model.git("config", "filter.slow.smudge", "sleep 1.1; cat")
    model.write(".git/info/attributes", b"slow filter=slow\n")
    model.commit_files({NAME: CONTENT, "slow": b"1"})
    model.commit_files({NAME: CONTENT[:-4] + bytes(4), "slow": b"2"})
    assert _filters(model, "checkout", "-q", "HEAD~1") == ("", 0)
    assert _filters(model, "status", "--porcelain") == ("", 0)
    with (model.path / NAME).open("r+b") as file:
        file.write(CONTENT[:4][::-1])
    assert _filters(model, "status", "--porcelain") == (f" M {NAME}\n", 1)


@pytest.mark.parametrize("direct_above", ["512m", "0"])
def test_a_checkout_is_newer_than_what_was_made_before_it(model, direct_above):
    """`make` took what was made of another version for up to date."""
    model.git("config", "theta.directAbove", direct_above)
    model.commit_files({NAME: CONTENT})
    model.commit_files({NAME: CONTENT[:-4] + bytes(4)})
    made = model.path / "made"
    made.write_bytes(b"")
    model.git("checkout", "-q", "HEAD~1")
    assert (model.path / NAME).read_bytes() == CONTENT
    assert (model.path / NAME).stat().st_mtime_ns > made.stat().st_mtime_ns


def test_a_rebase_that_writes_its_index_again_leaves_no_file_modified(model):
    """Git reads its index once, and wrote the size of the manifest over what the hook had put."""
    model.git("config", "theta.directAbove", "0")
    model.commit_files({NAME: CONTENT})
    model.git("checkout", "-q", "-b", "topic")
    model.commit_files({"notes": b"1"})
    model.commit_files({"notes": b"2"})
    model.git("checkout", "-q", "-")
    model.commit_files({NAME: CONTENT[:-4] + bytes(4)})
    onto = model.git("rev-parse", "HEAD")
    model.git("checkout", "-q", "topic")
    # A file of the second of the last index would be read once more, as any is.
    model.git("rebase", "-q", "-x", "git diff --exit-code && sleep 1.1", onto)
    assert _filters(model, "status", "--porcelain") == ("", 0)
    with (model.path / NAME).open("r+b") as file:
        file.write(CONTENT[:4][::-1])
    assert _filters(model, "status", "--porcelain") == (f" M {NAME}\n", 1)
