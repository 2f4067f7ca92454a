"""What a git-lfs that misbehaves does to a download: an error with its words, never a hang."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path

import pytest

from git_theta.errors import MissingToolError, TransferError
from git_theta.git import Repository, lfs_client
from git_theta.git.lfs import Lfs
from git_theta.git.lfs_client import Download
from git_theta.git.remotes import fetch_remote
from tests.support.repo import Repo

ROOT = Path(__file__).parents[3]

# Stands in for git-lfs: speaks the protocol up to a point that a test chooses.
FAKE = """#!{python}
import sys, time
sys.path.insert(0, {root!r})
from git_theta.git.pktline import PacketReader, PacketWriter
if sys.argv[1] == "version":
    sys.exit(print("git-lfs/3.9.9"))
if sys.argv[1] == "env":
    sys.exit(print({env!r}))
heard, said = PacketReader(sys.stdin.buffer), PacketWriter(sys.stdout.buffer)
print("fake words", file=sys.stderr, flush=True)
{script}
"""

GREET = """
list(heard.lines()); said.lines("git-filter-server", "version=2")
list(heard.lines()); said.lines("capability=clean", "capability=smudge", "capability=delay")
"""
DELAY = """
list(heard.lines()); list(heard.lines()); said.lines("status=delayed")
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch):
    """Puts a git-lfs of a test's own making first on the path."""

    def install(script: str = "", env: str = "LocalMediaDir=/nowhere") -> None:
        file = tmp_path / "bin/git-lfs"
        file.parent.mkdir(exist_ok=True)
        file.write_text(FAKE.format(python=sys.executable, root=str(ROOT), script=script, env=env))
        file.chmod(0o755)
        monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")

    return install


@pytest.fixture
def found(repo: Repo):
    with Repository.discover(repo.path) as found:
        yield found


def download(found: Repository) -> None:
    Lfs(found).download({"a" * 64: 10}, fetch_remote(found, "origin"), lambda oid, file: None)


@pytest.mark.parametrize(
    "script",
    [
        "",
        "sys.stdout.write('nonsense, not packets')",
        GREET,
        GREET + "list(heard.lines())",
        GREET + DELAY,
    ],
)
def test_one_that_dies_is_quoted(script, found, fake):
    fake(script)
    with pytest.raises(TransferError, match="fake words"):
        download(found)


def test_one_that_cannot_delay(found, fake):
    fake(GREET.replace(', "capability=delay"', "") + "heard.packet()")
    with pytest.raises(TransferError, match="cannot delay") as caught:
        download(found)
    assert "install git-lfs" in caught.value.hint


def test_one_that_never_gets_done(found, fake):
    fake(GREET + DELAY + "list(heard.lines()); said.lines(); said.lines('status=success')")
    with pytest.raises(TransferError, match="gave up: fake words"):
        download(found)


def test_one_that_does_not_end_is_ended(found, fake, monkeypatch):
    monkeypatch.setattr(lfs_client, "_PATIENCE_SECONDS", 0.2)
    fake(GREET + "time.sleep(60)")
    began = time.monotonic()
    with Download(found.top, {}, [], "origin"):
        pass
    assert time.monotonic() - began < 20


def test_one_that_does_not_say_where_objects_are(found, fake):
    found.git("config", "lfs.storage", "elsewhere")
    fake(env="Endpoint=nowhere")
    with pytest.raises(MissingToolError, match="where objects are"):
        Lfs(found).media_path("a" * 64)


def test_git_lfs_is_not_asked_where_objects_are_by_default(found, fake):
    fake(env="LocalMediaDir=/nowhere")
    assert Lfs(found).media_path("a" * 64).is_relative_to(found.common_dir / "lfs" / "objects")


def test_an_object_that_came_meanwhile_is_done(found):
    content = b"here already" * 100_000
    oid = hashlib.sha256(content).hexdigest()
    file = Lfs(found).media_path(oid)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with Download(found.top, {}, [], "origin") as client:
        assert list(client.fetch({oid: len(content)})) == [oid]
