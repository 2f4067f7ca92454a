"""Uploads and downloads with real git-lfs, to folders and over HTTP."""

from __future__ import annotations

import hashlib
import os
import random
import time
from pathlib import Path

import pytest

from git_theta.errors import CorruptObjectError, MissingToolError, TransferError
from git_theta.git import Repository
from git_theta.git.lfs import Lfs
from git_theta.git.remotes import find_remote
from tests.support.repo import Repo
from tests.support.servers import Server


class Meter:
    """Records progress."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, int]] = []
        self.done = 0
        self.finished = 0

    def start(self, what: str, total: int) -> None:
        self.jobs.append((what, total))

    def advance(self, count: int) -> None:
        self.done += count

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def here(repo: Repo):
    with Repository.discover(repo.path) as found:
        yield found


@pytest.fixture
def elsewhere(make_repo):
    """A second repository, with nothing in it."""
    made = make_repo("elsewhere")
    with Repository.discover(made.path) as found:
        yield found


@pytest.fixture
def objects(tmp_path: Path) -> dict[str, Path]:
    return make_objects(tmp_path / "objects", 3, 100_000)


def make_objects(folder: Path, count: int, size: int) -> dict[str, Path]:
    folder.mkdir()
    source = random.Random(0)
    made = {}
    for _ in range(count):
        content = source.randbytes(size)
        oid = hashlib.sha256(content).hexdigest()
        made[oid] = folder / oid
        made[oid].write_bytes(content)
    return made


def sizes(objects: dict[str, Path]) -> dict[str, int]:
    return {oid: file.stat().st_size for oid, file in objects.items()}


class Receiver:
    """Takes objects the way the store does: reads them, and verifies."""

    def __init__(self) -> None:
        self.got: dict[str, bytes] = {}

    def __call__(self, oid: str, file: Path) -> None:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != oid:
            raise CorruptObjectError("not what its name says", path=str(file))
        self.got[oid] = content


def check_received(receiver: Receiver, objects: dict[str, Path]) -> None:
    assert receiver.got == {oid: file.read_bytes() for oid, file in objects.items()}


def lfs_files(git_dir: Path) -> list[Path]:
    return [
        path for path in (git_dir / "lfs").rglob("*") if path.is_file() and "logs" not in path.parts
    ]


def test_the_version_is_known():
    assert tuple(map(int, Lfs.require().split(".")[:2])) >= (3, 3)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo git-lfs/3.2.0; exit 0", "3.2.0 is too old"),
        ("echo git-lfs/2.13.3; exit 0", "2.13.3 is too old"),
        ("exit 1", "not installed"),
        ("echo something else", "not installed"),
    ],
)
def test_an_absent_or_old_git_lfs_is_named(script, message, tmp_path, monkeypatch):
    program = tmp_path / "bin/git-lfs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(MissingToolError, match=message) as caught:
        Lfs.require()
    assert "install git-lfs" in caught.value.hint


def test_a_download_without_git_lfs_says_so(here, remote, objects, tmp_path, monkeypatch):
    (tmp_path / "git-lfs").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "git-lfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(MissingToolError, match="not installed"):
        Lfs(here).download(sizes(objects), find_remote(here, str(remote.path)), Receiver())


@pytest.mark.parametrize("form", ["name", "path", "url"])
def test_objects_travel_through_a_folder(form, repo, here, elsewhere, remote, objects):
    for each in (here, elsewhere):
        each.git("remote", "add", "origin", str(remote.path))
    named = {"name": "origin", "path": str(remote.path), "url": remote.path.as_uri()}[form]
    Lfs(here).upload(find_remote(here, named), objects)
    assert {path.name for path in lfs_files(remote.path)} == set(objects)
    assert lfs_files(here.git_dir) == []  # the links are gone again

    receiver = Receiver()
    Lfs(elsewhere).download(sizes(objects), find_remote(elsewhere, named), receiver)
    check_received(receiver, objects)
    assert lfs_files(elsewhere.git_dir) == []


def test_objects_travel_over_http(here, elsewhere, server: Server, objects):
    url = server.repository()
    for each in (here, elsewhere):
        each.git("remote", "add", "origin", url)
    up, down = Meter(), Meter()
    Lfs(here).upload(find_remote(here, "origin"), objects, up)
    assert set(server.objects()) == set(objects)
    asked = {**sizes(objects), "a" * 64: 10}
    assert Lfs(elsewhere).lacking(find_remote(elsewhere, "origin"), asked) == {"a" * 64}
    assert up.jobs == [("Uploading", 300_000)]
    assert (up.done, up.finished) == (300_000, 1)

    receiver = Receiver()
    Lfs(elsewhere).download(sizes(objects), find_remote(elsewhere, "origin"), receiver, down)
    check_received(receiver, objects)
    assert down.jobs == [("Downloading", 300_000)]
    assert (down.done, down.finished) == (300_000, 1)


def test_a_second_upload_sends_nothing(here, server, objects):
    url = server.repository()
    Lfs(here).upload(find_remote(here, url), objects)
    before = len(server.requests)
    Lfs(here).upload(find_remote(here, url), objects)
    assert [method for method, _ in server.requests[before:]] == ["POST"]  # the batch, no PUT


def test_nothing_to_move_asks_nobody(here, monkeypatch):
    nowhere = find_remote(here, "./nowhere")
    monkeypatch.setenv("PATH", "")
    assert Lfs(here).upload(nowhere, {}) == set()
    assert Lfs(here).lacking(nowhere, {}) == set()
    Lfs(here).download({}, nowhere, Receiver())


def test_settings_that_skip_downloads_are_overridden(here, elsewhere, remote, objects, monkeypatch):
    Lfs(here).upload(find_remote(here, str(remote.path)), objects)
    elsewhere.git("remote", "add", "origin", str(remote.path))
    elsewhere.git("config", "lfs.fetchexclude", "*")
    elsewhere.git("config", "lfs.fetchinclude", "nothing")
    monkeypatch.setenv("GIT_LFS_SKIP_SMUDGE", "1")
    receiver = Receiver()
    Lfs(elsewhere).download(sizes(objects), find_remote(elsewhere, "origin"), receiver)
    check_received(receiver, objects)


def test_a_download_leaves_no_hooks_behind(here, elsewhere, remote, objects):
    Lfs(here).upload(find_remote(here, str(remote.path)), objects)
    before = sorted((elsewhere.git_dir / "hooks").iterdir())
    Lfs(elsewhere).download(sizes(objects), find_remote(elsewhere, str(remote.path)), Receiver())
    assert sorted((elsewhere.git_dir / "hooks").iterdir()) == before


def test_what_git_lfs_has_already_is_used_and_stays(here, objects):
    lfs = Lfs(here)
    for oid, file in objects.items():
        target = lfs.media_path(oid)
        target.parent.mkdir(parents=True)
        target.write_bytes(file.read_bytes())
    receiver = Receiver()
    lfs.download(sizes(objects), None, receiver)
    check_received(receiver, objects)
    assert {path.name for path in lfs_files(here.git_dir)} == set(objects)


def test_an_upload_leaves_what_git_lfs_has_already(here, remote, objects):
    lfs = Lfs(here)
    oid, file = next(iter(objects.items()))
    lfs.media_path(oid).parent.mkdir(parents=True)
    lfs.media_path(oid).write_bytes(file.read_bytes())
    lfs.upload(find_remote(here, str(remote.path)), objects)
    assert [path.name for path in lfs_files(here.git_dir)] == [oid]


def test_missing_objects_are_counted_and_the_others_delivered(here, elsewhere, remote, objects):
    Lfs(here).upload(find_remote(here, str(remote.path)), objects)
    receiver = Receiver()
    asked = {**sizes(objects), "a" * 64: 10, "b" * 64: 10}
    with pytest.raises(TransferError, match="download 2 objects") as caught:
        Lfs(elsewhere).download(asked, find_remote(elsewhere, str(remote.path)), receiver)
    check_received(receiver, objects)
    assert "missing object" in caught.value.message
    assert str(remote.path) in caught.value.hint


def test_missing_objects_over_http(here, server):
    url = server.repository()
    with pytest.raises(TransferError, match="404"):
        Lfs(here).download({"a" * 64: 10}, find_remote(here, url), Receiver())


def test_a_remote_that_does_not_answer(here, objects):
    url = "http://127.0.0.1:1/nobody.git"
    with pytest.raises(TransferError, match="connection refused"):
        Lfs(here).download(sizes(objects), find_remote(here, url), Receiver())
    with pytest.raises(TransferError, match="connection refused"):
        Lfs(here).upload(find_remote(here, url), objects)
    assert lfs_files(here.git_dir) == []


def test_a_host_without_space(here, server, objects):
    url = server.repository()
    server.refuse["objects/storage"] = "507 Insufficient Storage"
    with pytest.raises(TransferError, match="cannot upload"):
        Lfs(here).upload(find_remote(here, url), objects)
    assert lfs_files(here.git_dir) == []


def test_a_corrupt_object_is_not_kept_to_be_found_again(here, elsewhere, remote, objects):
    Lfs(here).upload(find_remote(here, str(remote.path)), objects)
    bad = lfs_files(remote.path)[0]
    bad.chmod(0o644)
    bad.write_bytes(bytes(bad.stat().st_size))
    with pytest.raises((CorruptObjectError, TransferError)):
        Lfs(elsewhere).download(
            sizes(objects), find_remote(elsewhere, str(remote.path)), Receiver()
        )
    assert lfs_files(elsewhere.git_dir) == []


def test_an_upload_that_went_nowhere_is_an_error(here, remote, objects, tmp_path, monkeypatch):
    # lfs.storage given this way reaches the process that stands for the remote, too: git-lfs 3.3
    # then finds its own objects there, and reports success.
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "lfs.storage")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(tmp_path / "shared"))
    with pytest.raises(TransferError, match="did not arrive"):
        Lfs(here).upload(find_remote(here, str(remote.path)), objects)


@pytest.mark.parametrize("how", ["lfs.url", "remote.origin.lfsurl", ".lfsconfig"])
def test_objects_may_live_elsewhere_than_commits(how, repo, here, remote, server, objects):
    endpoint = f"{server.repository()}/info/lfs"
    repo.git("remote", "add", "origin", str(remote.path))
    if how == ".lfsconfig":
        repo.write(".lfsconfig", f"[lfs]\n\turl = {endpoint}\n".encode())
    else:
        repo.git("config", how, endpoint)
    Lfs(here).upload(find_remote(here, "origin"), objects)
    assert set(server.objects()) == set(objects)
    assert lfs_files(remote.path) == []


def test_storage_that_is_configured(repo, here, remote, objects, tmp_path):
    repo.git("config", "lfs.storage", str(tmp_path / "elsewhere-in-the-house"))
    assert Lfs(here).media_path("a" * 64).is_relative_to(tmp_path / "elsewhere-in-the-house")
    Lfs(here).upload(find_remote(here, str(remote.path)), objects)
    assert {path.name for path in lfs_files(remote.path)} == set(objects)


def test_work_trees_share_the_storage(repo, here, tmp_path):
    repo.commit()
    repo.git("worktree", "add", "-q", str(tmp_path / "second"))
    with Repository.discover(tmp_path / "second") as second:
        assert Lfs(second).media_path("a" * 64) == Lfs(here).media_path("a" * 64)


def test_bare_repositories_download_too(here, remote, make_repo, objects):
    Lfs(here).upload(find_remote(here, str(remote.path)), objects)
    with Repository.discover(make_repo("other.git", "--bare").path) as bare:
        receiver = Receiver()
        Lfs(bare).download(sizes(objects), find_remote(bare, str(remote.path)), receiver)
        check_received(receiver, objects)


def test_two_hundred_objects_travel_in_seconds(here, elsewhere, remote, server, tmp_path):
    many = make_objects(tmp_path / "many", 200, 10_000)
    for place in (str(remote.path), server.repository()):
        began = time.monotonic()
        Lfs(here).upload(find_remote(here, place), many)
        receiver = Receiver()
        Lfs(elsewhere).download(sizes(many), find_remote(elsewhere, place), receiver)
        check_received(receiver, many)
        assert time.monotonic() - began < 30  # one process per object takes 22 s for a download
