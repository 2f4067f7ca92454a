"""The test server and the isolation themselves: a fixture that lies makes every test lie."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from tests.support.repo import Repo
from tests.support.servers import Server


def test_git_finds_no_configuration_but_the_tests_own(repo: Repo, home: Path) -> None:
    origins = repo.git("config", "--list", "--show-origin", "--global").splitlines()
    assert origins
    assert all(str(home) in line for line in origins)
    assert repo.process("config", "--list", "--system").stdout == b""


def test_home_is_the_tests_own(home: Path) -> None:
    assert Path.home() == home
    shown = subprocess.run(["sh", "-c", "echo ~"], capture_output=True, check=True)
    assert shown.stdout.decode().strip() == str(home)


def test_the_server_takes_a_push_of_git_and_lfs_and_gives_it_back(
    repo: Repo, server: Server, tmp_path: Path
) -> None:
    url = server.repository()
    repo.git("lfs", "install", "--local")
    repo.commit_files({".gitattributes": b"*.bin filter=lfs -text\n", "a.bin": b"weights" * 1000})
    repo.git("remote", "add", "origin", url)
    repo.git("push", "-q", "-u", "origin", "main")

    assert len(server.objects()) == 1
    clone = Repo.clone(url, tmp_path / "clone", "-c", "filter.lfs.smudge=git-lfs smudge -- %f")
    clone.git("lfs", "install", "--local")
    clone.git("lfs", "pull")
    assert clone.read("a.bin") == b"weights" * 1000


def test_the_server_takes_a_push_larger_than_gits_post_buffer(
    repo: Repo, server: Server, tmp_path: Path
) -> None:
    url = server.repository()
    noise = random.Random(1).randbytes(3 << 20)
    repo.commit_files({"big": noise})
    repo.git("push", "-q", url, "main")
    assert Repo.clone(url, tmp_path / "clone").read("big") == noise


def test_the_server_refuses_what_it_is_told_to(repo: Repo, server: Server) -> None:
    url = server.repository()
    repo.commit()
    server.refuse["git-receive-pack"] = "403 Forbidden"
    assert repo.process("push", "-q", url, "main").returncode != 0
