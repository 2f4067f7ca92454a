"""Bytes at hand are used: adding a file again mends what was lost of it."""

from __future__ import annotations

import os

import pytest

from git_theta import manifest
from tests.support import checkpoints
from tests.support.repo import Repo

BASE = checkpoints.tensors(rows=64)
FIRST = checkpoints.safetensors(BASE)
SECOND = checkpoints.safetensors(checkpoints.finetuned(BASE))
PATH = "model.safetensors"


def _objects(repo: Repo, spec: str = f":{PATH}") -> set[str]:
    return set(manifest.parse(repo.process("show", spec).stdout).objects())


def _file(repo: Repo, oid: str):
    return repo.path / ".git/theta/objects" / oid[:2] / oid


def _damage(repo: Repo) -> None:
    """Flip a byte in one object of the fine-tune, remove the others; the base stays."""
    first, *others = sorted(_objects(repo) - _objects(repo, f"HEAD~1:{PATH}"))
    content = bytearray(_file(repo, first).read_bytes())
    content[-1] ^= 1
    _file(repo, first).unlink()
    _file(repo, first).write_bytes(content)
    for oid in others:
        _file(repo, oid).unlink()


def _add_again(repo: Repo, *command: str) -> None:
    os.utime(repo.path / PATH)  # else git knows that it has not changed, and does not ask
    repo.git(*command)


def _checkout(repo: Repo, rev: str = "HEAD") -> bytes:
    (repo.path / PATH).unlink()
    repo.git("checkout", "-q", rev, "--", PATH)
    return repo.read(PATH)


@pytest.fixture
def damaged(model: Repo) -> Repo:
    """A repository with two versions of a checkpoint; the objects of HEAD are damaged or gone."""
    model.git("config", "theta.packLimit", "4k")  # packs, and objects of a single frame
    model.commit_files({PATH: FIRST})
    model.commit_files({PATH: SECOND})
    _damage(model)
    return model


@pytest.mark.parametrize(
    "command",
    [("add", PATH), ("add", "--renormalize", "."), ("commit", "-q", "-a", "--amend", "-m", "x")],
    ids=["add", "renormalize", "amend"],
)
def test_adding_again_restores_the_objects_of_the_commit(damaged, command):
    before = damaged.git("rev-parse", f"HEAD:{PATH}")
    _add_again(damaged, *command)
    assert damaged.git("rev-parse", f":{PATH}") == before, "no difference, since nothing differs"
    assert _checkout(damaged) == SECOND


def test_after_removing_it_from_the_index(damaged, theta):
    damaged.git("rm", "-q", "--cached", PATH)
    _add_again(damaged, "add", PATH)
    assert theta(damaged, "fsck").returncode == 0
    assert _checkout(damaged) == SECOND


def test_when_the_base_is_gone_the_file_is_stored_without_it(model, theta):
    model.commit_files({PATH: FIRST})
    model.commit_files({PATH: SECOND})
    for oid in _objects(model):
        _file(model, oid).unlink()
    _add_again(model, "add", PATH)
    model.git("commit", "-q", "-m", "again")
    assert _checkout(model) == SECOND
    assert theta(model, "fsck", "HEAD").returncode == 0


def test_objects_that_come_out_otherwise_are_named_by_the_new_manifest(model):
    """As after an upgrade: the old manifest would be no help to anybody."""
    model.git("config", "theta.packLimit", "1")
    model.commit_files({PATH: FIRST})
    model.git("config", "--unset", "theta.packLimit")
    for oid in _objects(model):
        _file(model, oid).unlink()
    _add_again(model, "add", PATH)
    assert _objects(model) != _objects(model, f"HEAD:{PATH}")
    model.git("commit", "-q", "-m", "again")
    assert _checkout(model) == FIRST


def test_an_unchanged_file_keeps_its_manifest(model):
    """Cut and packed otherwise than it would be now, but all of it is here."""
    model.git("config", "theta.packLimit", "1")
    model.commit_files({PATH: FIRST})
    model.git("config", "--unset", "theta.packLimit")
    before = model.git("rev-parse", f":{PATH}")
    (model.path / ".git/theta/index.db").unlink()
    _add_again(model, "add", PATH)
    assert model.git("rev-parse", f":{PATH}") == before


@pytest.mark.parametrize("where", ["index.db", "index.lock"])
def test_an_index_that_cannot_be_used_is_a_warning(model, where):
    (model.path / ".git/theta").mkdir(exist_ok=True)
    (model.path / ".git/theta/index.db").write_bytes(b"")
    (model.path / ".git/theta/index.lock").unlink(missing_ok=True)
    if where == "index.lock":
        (model.path / ".git/theta" / where).mkdir()
        (model.path / ".git/theta/index.db").unlink()
        (model.path / ".git/theta/index.db").symlink_to("nowhere/index.db")
    else:
        (model.path / ".git/theta" / where).unlink()
        (model.path / ".git/theta" / where).symlink_to("/proc/self/nothing")
    for name in (PATH, "b.safetensors"):
        model.write(name, FIRST)
    added = model.process("add", ".")
    assert added.returncode == 0, added.stderr
    assert added.stderr.count(b"the index cannot be") == 1
    model.git("commit", "-q", "-m", "add")
    assert _checkout(model) == FIRST
