"""Repositories of several users, and those that may only be read."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from git_theta import manifest
from tests.support import checkpoints
from tests.support.failures import on_tmpfs, read_only
from tests.support.repo import Repo

FIRST = checkpoints.safetensors(checkpoints.tensors(rows=64))
SECOND = checkpoints.safetensors(checkpoints.finetuned(checkpoints.tensors(rows=64)))
PATH = "model.safetensors"
_FIRST_USER = 12345

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="becomes other users"
)


def _as_other(repo: Repo, *args: str, umask: int = 0o022) -> subprocess.CompletedProcess[bytes]:
    """Run git as a user of the group whom permissions bind: root without its capabilities."""
    trusted = ("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory")
    return subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "git", *args],
        cwd=repo.path,
        umask=umask,
        capture_output=True,
        env={**os.environ, **dict(trusted), "GIT_CONFIG_VALUE_0": "*"},
    )


def _give_away(repo: Repo) -> None:
    """Let everything belong to another user, of the same group."""
    for path in (repo.path, *repo.path.rglob("*")):
        os.chown(path, _FIRST_USER, 0, follow_symlinks=False)


@pytest.fixture
def public(model: Repo) -> Repo:
    """A repository that a group shares."""
    model.git("config", "core.sharedRepository", "group")
    shutil.rmtree(model.path / ".git/theta", ignore_errors=True)
    for path in (model.path, *model.path.rglob("*")):
        path.chmod(path.stat().st_mode | (0o2770 if path.is_dir() else 0o060))
    return model


@pytest.fixture
def frozen(model: Repo) -> Iterator[Repo]:
    """A repository that may be read only; what is in the work tree was changed since."""
    model.commit_files({PATH: FIRST, "changed.safetensors": FIRST})
    model.write("changed.safetensors", SECOND)
    with read_only(model.path):
        yield model


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=["022", "077"])
def test_two_users_of_one_group(public, theta, umask):
    before = os.umask(umask)
    try:
        public.commit_files({PATH: FIRST})
    finally:
        os.umask(before)
    public.write(PATH, SECOND).chmod(0o664)
    _give_away(public)
    _check_modes(public, umask)
    added = _as_other(public, "add", PATH, umask=umask)
    assert added.returncode == 0, added.stderr
    assert b"cannot" not in added.stderr
    _check_modes(public, umask)
    committed = _as_other(public, "commit", "-q", "-m", "by both", umask=umask)
    assert committed.returncode == 0, committed.stderr
    checked = _as_other(public, "theta", "fsck")
    assert checked.returncode == 0, checked.stdout


def _check_modes(repo: Repo, umask: int) -> None:
    """Whatever is in our folder, the group may use as it may use what git makes."""
    paths = list((repo.path / ".git/theta").rglob("*"))
    assert len(paths) > 5
    for path in paths:
        mode = path.stat().st_mode
        wanted = (
            0o2070 if path.is_dir() else 0o040 if path.parent.parent.name == "objects" else 0o060
        )
        assert mode & wanted == wanted, (path, oct(mode))
        assert umask == 0o022 or not mode & 0o007, (path, oct(mode))


def test_what_somebody_else_stored_is_used_again(public):
    """Only its owner may change its time, so it is replaced by a copy: he could collect it."""
    public.commit_files({PATH: FIRST})
    public.git("rm", "-q", "--cached", PATH)
    for file in (public.path / ".git/theta/objects").rglob("*"):
        os.utime(file, (1, 1))
    _give_away(public)
    added = _as_other(public, "add", PATH)
    assert added.returncode == 0, added.stderr
    text = _as_other(public, "show", f":{PATH}").stdout
    for oid in manifest.parse(text).objects():
        assert (public.path / ".git/theta/objects" / oid[:2] / oid).stat().st_mtime > 1


class TestReadOnly:
    """One who may write nothing, and is not told so by every command that reads."""

    def test_the_content(self, frozen):
        shown = _as_other(frozen, "cat-file", "--filters", f"HEAD:{PATH}")
        assert (shown.returncode, shown.stdout, shown.stderr) == (0, FIRST, b"")

    def test_an_archive(self, frozen, tmp_path):
        made = _as_other(frozen, "archive", "HEAD")
        assert (made.returncode, made.stderr) == (0, b"")
        (tmp_path / "a.tar").write_bytes(made.stdout)
        with tarfile.open(tmp_path / "a.tar") as archive:
            assert archive.extractfile(PATH).read() == FIRST

    def test_status(self, frozen):
        os.utime(frozen.path / PATH)
        done = _as_other(frozen, "status", "--porcelain")
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b" M changed.safetensors\n"
        shown = _as_other(frozen, "theta", "status")
        assert (shown.returncode, shown.stderr) == (0, b"")
        assert b"changed.safetensors" in shown.stdout

    def test_add_fails(self, frozen):
        done = _as_other(frozen, "add", "changed.safetensors")
        assert done.returncode != 0


_READ_ONLY_DISK = """
import os, shutil, subprocess, sys
disk = sys.argv[1]
shutil.copytree(os.environ["REPOSITORY"], f"{disk}/repo", symlinks=True)
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
for command in (
    ("cat-file", "--filters", "HEAD:model.safetensors"), ("archive", "HEAD"), ("theta", "status"),
    ("theta", "fsck"), ("theta", "ls-files"), ("theta", "gc"), ("add", "changed.safetensors"),
):
    done = subprocess.run(["git", *command], cwd=f"{disk}/repo", capture_output=True)
    print(*command[:2], done.returncode, len(done.stderr.splitlines()))
"""


def test_a_read_only_file_system(model, tmp_path, monkeypatch):
    """What reads works, and says nothing; what writes fails, and says why."""
    model.commit_files({PATH: FIRST, "changed.safetensors": FIRST})
    model.write("changed.safetensors", SECOND)
    monkeypatch.setenv("REPOSITORY", str(model.path))
    said = on_tmpfs("size=16m", _READ_ONLY_DISK, tmp_path / "disk").splitlines()
    assert said == [
        "cat-file --filters 0 0",
        "archive HEAD 0 0",
        "theta status 0 0",
        "theta fsck 0 0",
        "theta ls-files 0 0",
        "theta gc 0 0",
        "add changed.safetensors 128 1",
    ]
