"""Refs and files that somebody planted on a remote: they are not commands, and stop no push."""

from __future__ import annotations

import pytest

from tests.support import checkpoints
from tests.support.repo import Repo

FILE = checkpoints.safetensors(checkpoints.tensors())
_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 1\n"


@pytest.fixture
def attacker(model: Repo, remote: Repo, tmp_path) -> Repo:
    """A clone of a repository that the victim has pushed; its branch ``evil`` is not merged."""
    model.git("remote", "add", "origin", str(remote.path))
    model.commit_files({"model.safetensors": FILE})
    model.git("push", "-q", "origin", "main")
    clone = Repo.clone(remote.path, tmp_path / "attacker")
    clone.git("checkout", "-q", "-b", "evil")
    clone.commit_files({"evil": b"evil"})
    return clone


def _plant(attacker: Repo, remote: Repo, name: str, content: str) -> None:
    """Push 33 refs of our form, whose trees have a file ``name``."""
    blob = attacker.git("hash-object", "-w", "--stdin", stdin=content.encode())
    refs = []
    for number in range(33):
        records = "\0".join(f"100644 blob {blob}\t{path}" for path in (str(number), name))
        tree = attacker.git("mktree", "-z", stdin=f"{records}\0".encode())
        commit = attacker.git("commit-tree", "-p", "evil", "-m", "planted", tree)
        refs.append(f"{commit}:refs/theta/objects/{number:040x}")
    attacker.git("push", "-q", "--no-verify", "origin", "evil", *refs)


def test_a_file_name_is_never_a_command(model, remote, attacker):
    """`git fast-import` took this one for a command that moves the checked-out branch."""
    evil = attacker.git("rev-parse", "evil")
    # The name ends what comes before it, resets HEAD, and makes what comes after it a blob.
    name = f"zz\ndata 0\n\nreset HEAD\nfrom {evil}\n\nblob"
    _plant(attacker, remote, name, _POINTER)
    for number in range(2):
        commit = model.commit_files({f"{number}.safetensors": FILE + bytes([number])})
        model.git("push", "-q", "origin", "main")
        assert model.git("rev-parse", "HEAD") == commit
        assert remote.git("rev-parse", "main") == commit
    assert model.git("for-each-ref", "refs/theta") == ""


def test_planted_refs_do_not_stop_a_push(model, remote, attacker):
    _plant(attacker, remote, "a", "no pointer at all")
    said = []
    for number in range(3):
        content = checkpoints.safetensors(checkpoints.tensors(seed=number + 1))
        model.commit_files({"model.safetensors": content})
        done = model.process("push", "origin", "main")
        assert done.returncode == 0, done.stderr
        said.append(b"did not write" in done.stderr)
    assert sum(said) <= 1
    assert remote.git("rev-parse", "main") == model.git("rev-parse", "main")
