"""Repositories with git-theta installed the way a user installs it."""

from __future__ import annotations

import subprocess
import sys
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
def installed(theta, repo: Repo) -> None:
    """git-theta installed for the user (of this test)."""
    done = theta(repo, "install", "--global")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def model(installed, repo: Repo, theta) -> Repo:
    """A repository in which safetensors and torch files are tracked."""
    done = theta(repo, "track", "*.safetensors", "*.pt")
    assert done.returncode == 0, done.stderr
    repo.git("add", ".gitattributes")
    repo.git("commit", "-q", "-m", "Track checkpoints")
    return repo
