"""After a checkout by the hook, git asks about what was just written; it is not read again."""

from __future__ import annotations

import os

import pytest

from git_theta.filters import deferred
from git_theta.filters.session import Session
from git_theta.git import worktree
from git_theta.workspace import open_workspace
from tests.support import checkpoints
from tests.support.repo import Repo

CONTENT = checkpoints.safetensors(checkpoints.tensors(rows=64))


@pytest.fixture
def stub(model: Repo):
    model.commit_files({"model.safetensors": CONTENT})
    model.git("-c", "theta.smudge=false", "checkout", "-q", "--force", "HEAD~0")
    text = (model.git("show", "HEAD:model.safetensors") + "\n").encode()
    model.write("model.safetensors", text)
    return model, text


@pytest.mark.parametrize("is_written_to", [False, True])
def test_the_refresh_sees_only_what_was_written_to(stub, monkeypatch, is_written_to):
    repo, text = stub
    monkeypatch.chdir(repo.path)
    answers = []

    def refresh(of, paths, environment):
        monkeypatch.setattr(os, "environ", {**os.environ, **environment})
        if is_written_to:
            (repo.path / "model.safetensors").write_bytes(b"other")
        session = Session(workspace, lambda _: None)
        sent = (repo.path / "model.safetensors").read_bytes()
        answers.append(b"".join(map(bytes, session.clean("model.safetensors", iter([sent])))))

    monkeypatch.setattr(worktree, "refresh", refresh)
    seen = []
    monkeypatch.setattr(
        "git_theta.filters.session.Packets", lambda content: seen.append(1) or _Refuse()
    )
    with open_workspace() as workspace:
        run = deferred.checkout_deferred
        if is_written_to:
            with pytest.raises(AssertionError, match="read"):
                run(workspace, ["model.safetensors"])
        else:
            run(workspace, ["model.safetensors"])
            assert answers == [text]
    assert bool(seen) == is_written_to


class _Refuse:
    def take(self, length: int) -> bytes:
        raise AssertionError("read")
