"""Repositories with git-theta installed the way a user installs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.repo import Repo

PROGRAM = Path(sys.executable).with_name("git-theta")


@pytest.fixture
def theta():
    """Runs the ``git-theta`` script in a repository; gives status and output."""

    def run(
        repo: Repo, *args: str, stdin: bytes | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        import os

        return subprocess.run(
            [str(PROGRAM), *args],
            cwd=repo.path,
            input=stdin.decode() if stdin is not None else None,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **(env or {})},
        )

    return run


@pytest.fixture
def theta_here(monkeypatch):
    """The same within this process, for commands that git does not start: 0.7 s less each."""
    from click.testing import CliRunner

    from git_theta.cli.app import cli
    from git_theta.cli.exit_handling import report

    def run(repo: Repo, *args: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(repo.path)
        done = CliRunner().invoke(cli, args, standalone_mode=False)
        error = done.exception
        said = str(error) if error else ""
        return subprocess.CompletedProcess(
            args, report(error) if error else 0, done.stdout, done.stderr + said
        )

    return run


@pytest.fixture
def installed(theta, repo: Repo) -> None:
    """git-theta installed for the user (of this test)."""
    done = theta(repo, "install", "--global")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """Prepares a repository and its user's configuration once, and copies them from then on.

    Starting git and git-theta a dozen times takes seconds. Each module has keys of its own.
    """
    known: dict[object, Path] = {}

    def prepare(name: object, home: Path, repo: Repo, work: Callable[[], None]) -> None:
        key = (work.__module__, name)
        if key in known:
            shutil.rmtree(repo.path)
            shutil.copytree(known[key] / "repo", repo.path, symlinks=True)
            shutil.copy(known[key] / "gitconfig", home / ".gitconfig")
            repo.git("update-index", "-q", "--unmerged", "--refresh")  # the copies are other files
            return
        work()
        folder = tmp_path_factory.mktemp("once")
        shutil.copytree(repo.path, folder / "repo", symlinks=True)
        shutil.copy(home / ".gitconfig", folder / "gitconfig")
        known[key] = folder

    return prepare


@pytest.fixture
def model(once, home: Path, repo: Repo, theta) -> Repo:
    """A repository in which safetensors and torch files are tracked."""

    def track() -> None:
        for args in (("install",), ("track", "*.safetensors", "*.pt")):
            done = theta(repo, *args)
            assert done.returncode == 0, done.stderr
        repo.git("add", ".gitattributes")
        repo.git("commit", "-q", "-m", "Track checkpoints")

    once("model", home, repo, track)
    return repo
