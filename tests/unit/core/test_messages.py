from __future__ import annotations

import subprocess

import pytest

from git_theta.core.messages import as_typed
from tests.support.repo import Repo


@pytest.mark.parametrize(
    "path", ["plain.pt", "--help", "-x", ":(top)x", "it's $HOME", "a b", "a\nb", "~"]
)
def test_the_shell_and_git_take_it_for_this_path(path: str, repo: Repo) -> None:
    repo.write(path, b"1")
    repo.write("other", b"1")
    subprocess.run(["sh", "-c", f"git add {as_typed(path)}"], cwd=repo.path, check=True)
    assert repo.git("ls-files", "-z") == f"{path}\0"
