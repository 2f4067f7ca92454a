"""Modes in shared repositories: those that git gives its own files."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_theta.core.files import atomic_file
from git_theta.core.locks import exclusive_lock
from git_theta.core.sharing import make_folder, share


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "theta"
    share(tmp_path / "theta", None)


@pytest.fixture(params=[0o022, 0o077], ids=["022", "077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _gits(setting: str, top: Path) -> tuple[int, int]:
    """The modes of a folder and of an object that git itself makes."""
    subprocess.run(["git", "init", "-q", f"--shared={setting}", str(top)], check=True)
    made = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"],
        cwd=top,
        input=b"x",
        stdout=subprocess.PIPE,
        check=True,
    )
    oid = made.stdout.decode().strip()
    file = top / ".git/objects" / oid[:2] / oid[2:]
    return _mode(file.parent), _mode(file)


@pytest.mark.parametrize("setting", ["group", "true", "1", "all", "world", "2", "0640", "0664"])
def test_as_git_does(folder: Path, umask: int, setting: str, tmp_path: Path) -> None:
    share(folder, setting)
    with atomic_file(folder / "objects/ab/file", 0o444) as file:
        file.write(b"content")
    file = folder / "objects/ab/file"
    assert (_mode(file.parent), _mode(file)) == _gits(setting, tmp_path / "git")
    with exclusive_lock(folder / "lock"):
        assert _mode(folder / "lock") & 0o060 == (0o040 if setting == "0640" else 0o060)


@pytest.mark.parametrize("setting", [None, "umask", "false", "0", "0222", "nonsense"])
def test_the_umask_decides(folder: Path, umask: int, setting: str | None) -> None:
    share(folder, setting)
    make_folder(folder / "a")
    assert _mode(folder / "a") == 0o777 & ~umask


def test_nothing_outside(folder: Path, umask: int, tmp_path: Path) -> None:
    share(folder, "group")
    make_folder(tmp_path / "other")
    assert _mode(tmp_path / "other") == 0o777 & ~umask


def test_a_file_where_a_folder_should_be(folder: Path) -> None:
    folder.write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        make_folder(folder / "a")
