"""After a checkout git knows what was just written; it is not read again."""

from __future__ import annotations

import pytest

from git_theta.filters import deferred
from git_theta.git import index_stats, worktree
from git_theta.workspace import open_workspace
from tests.support import checkpoints
from tests.support.repo import Repo

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
    with open_workspace() as workspace:
        deferred.checkout_deferred(workspace, [NAME])
    assert asked == []
    assert (stub.path / NAME).read_bytes() == CONTENT
    assert _filters(stub, "status", "--porcelain") == ("", 0)
    (stub.path / NAME).write_bytes(CONTENT[::-1])
    assert _filters(stub, "status", "--porcelain") == (f" M {NAME}\n", 1)


def test_git_reads_what_was_written_to_before_it_was_told(stub, monkeypatch):
    monkeypatch.chdir(stub.path)
    record = index_stats.record

    def late(index, written):
        (stub.path / NAME).write_bytes(CONTENT[::-1])
        return record(index, written)

    monkeypatch.setattr(index_stats, "record", late)
    with open_workspace() as workspace:
        deferred.checkout_deferred(workspace, [NAME])
    assert (stub.path / NAME).read_bytes() == CONTENT[::-1]
    assert stub.git("status", "--porcelain") in (f" M {NAME}", f"M  {NAME}")


def test_git_does_not_read_again_what_it_has_just_written(model):
    """A file of the same second as the index: each first command after a checkout read it."""
    model.commit_files({NAME: CONTENT})
    model.commit_files({NAME: CONTENT[:-4] + bytes(4)})
    assert _filters(model, "checkout", "-q", "HEAD~1") == ("", 0)
    assert _filters(model, "checkout", "-q", "-") == ("", 0)
    assert _filters(model, "status", "--porcelain") == ("", 0)
    with (model.path / NAME).open("r+b") as file:
        file.write(CONTENT[:4][::-1])
    assert _filters(model, "status", "--porcelain") == (f" M {NAME}\n", 1)
