"""``git theta fsck --repair`` uses whatever has the bytes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from git_theta import manifest
from tests.support import checkpoints
from tests.support.repo import Repo

BASE = checkpoints.tensors(rows=64)
FIRST = checkpoints.safetensors(BASE)
SECOND = checkpoints.safetensors(checkpoints.finetuned(BASE))
PATH = "model.safetensors"


@pytest.fixture
def history(model: Repo) -> Repo:
    """A base, and its fine-tune in the work tree: packs, and an object for each matrix."""
    model.git("config", "theta.packLimit", "4k")
    model.commit_files({PATH: FIRST})
    model.commit_files({PATH: SECOND})
    return model


def _objects(repo: Repo, spec: str = f"HEAD:{PATH}") -> dict[str, int]:
    return manifest.parse(repo.process("show", spec).stdout).objects()


def _file(repo: Repo, oid: str) -> Path:
    return repo.path / ".git/theta/objects" / oid[:2] / oid


def _flip(file: Path, *, unseen: bool = False) -> None:
    status = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if not unseen:
        file.unlink()  # it may be one file with the remote's, by a hard link
    else:
        file.chmod(0o644)
    file.write_bytes(content)
    if unseen:  # as a bit that rots on the disk
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _own(repo: Repo) -> list[str]:
    """The objects of HEAD that are not its base's."""
    return sorted(_objects(repo).keys() - _objects(repo, f"HEAD~1:{PATH}").keys())


def _checkout(repo: Repo, rev: str) -> bytes:
    repo.git("checkout", "-q", "-f", rev)
    return repo.read(PATH)


@pytest.mark.parametrize("loss", ["gone", "flipped", "rotten"])
def test_from_the_work_tree(history, theta, loss):
    for oid in _own(history):
        if loss == "gone":
            _file(history, oid).unlink()
        else:
            _flip(_file(history, oid), unseen=loss == "rotten")
    assert theta(history, "fsck").returncode == 1
    done = theta(history, "fsck", "--repair")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("restored: ") == len(_own(history))
    assert not list((history.path / ".git/theta").glob("bad/*"))
    assert _checkout(history, "HEAD~1") == FIRST
    assert _checkout(history, "main") == SECOND


def test_from_another_work_tree(history, theta, tmp_path):
    history.git("worktree", "add", "-q", "--detach", str(tmp_path / "second"), "HEAD")
    history.git("checkout", "-q", "--detach", "HEAD~1")
    for oid in _own(Repo(tmp_path / "second")):
        _file(history, oid).unlink()
    assert theta(history, "fsck", "--repair").returncode == 0


def test_the_base_alone_cannot_be_made_from_the_fine_tune(history, theta):
    for oid in _objects(history, f"HEAD~1:{PATH}"):
        _file(history, oid).unlink()
    done = theta(history, "fsck", "--repair", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    lost = {problem["oid"] for problem in report["problems"]}
    assert lost
    assert lost <= _objects(history, f"HEAD~1:{PATH}").keys()
    words = theta(history, "fsck", "--repair").stdout
    assert "fix: git theta fsck --repair --from PATH" in words


@pytest.mark.parametrize("kind", ["repository", "bare", "objects", "worktree"])
def test_from_another_clone(history, theta, tmp_path, kind):
    place = tmp_path / "other"
    if kind == "repository":
        shutil.copytree(history.path, place)
    elif kind == "bare":
        history.git("clone", "-q", "--bare", str(history.path), str(place))
        for oid in _objects(history):
            target = place / "lfs/objects" / oid[:2] / oid[2:4] / oid
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(_file(history, oid), target)
    elif kind == "objects":
        shutil.copytree(history.path / ".git/theta/objects", place)
    else:
        shutil.copytree(history.path, tmp_path / "main")
        (place / ".git").parent.mkdir()
        git_dir = tmp_path / "main/.git/worktrees/other"
        git_dir.mkdir(parents=True)
        (git_dir / "commondir").write_text("../..\n")
        (place / ".git").write_text(f"gitdir: {git_dir}\n")
    shutil.rmtree(history.path / ".git/theta/objects")
    (history.path / PATH).unlink()
    assert theta(history, "fsck", "--repair").returncode == 1
    done = theta(history, "fsck", "--repair", "--from", str(place))
    assert done.returncode == 0, done.stdout
    assert _checkout(history, "HEAD~1") == FIRST
    assert _checkout(history, "main") == SECOND


def test_a_damaged_copy_is_no_help(history, theta, tmp_path):
    shutil.copytree(history.path, tmp_path / "other")
    (tmp_path / "other" / PATH).unlink()
    (history.path / PATH).unlink()
    for oid in _own(history):
        _file(history, oid).unlink()
        _flip(_file(Repo(tmp_path / "other"), oid))
    done = theta(history, "fsck", "--repair", "--from", str(tmp_path / "other"))
    assert done.returncode == 1
    assert not any(_file(history, oid).exists() for oid in _own(history))


def test_from_a_remote(history, remote, theta):
    history.git("remote", "add", "origin", str(remote.path))
    history.git("push", "-q", "origin", "main")
    (history.path / PATH).unlink()
    for oid in _own(history):
        _flip(_file(history, oid))
    done = theta(history, "fsck", "--repair")
    assert done.returncode == 0, done.stdout
    assert "from a remote" in done.stdout
    assert _checkout(history, "main") == SECOND


def test_what_is_said_is_short(model, theta):
    """Many objects, the same checkpoint in the index and HEAD, many tensors: a few lines."""
    model.git("config", "theta.packLimit", "1")
    model.commit_files({PATH: checkpoints.safetensors(checkpoints.tensors(layers=10))})
    model.commit_files({"b": b"b"})
    (model.path / PATH).unlink()
    for oid in _objects(model):
        _file(model, oid).unlink()
    lines = theta(model, "fsck").stdout.splitlines()
    assert len(lines) == 7
    assert sum(line.startswith("missing: ") for line in lines) == 4
    needed = [line for line in lines if "needed by" in line]
    assert needed == [f"  needed by HEAD:{PATH}: {needed[0].split(': ')[1]}"]
    assert needed[0].endswith("more tensors")


def test_from_goes_with_repair(history, theta, tmp_path):
    done = theta(history, "fsck", "--from", str(tmp_path))
    assert done.returncode == 2
    assert "--repair" in done.stderr
