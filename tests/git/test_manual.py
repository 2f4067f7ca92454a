"""Manual pages, as a wheel installs them, in a real man on a real terminal."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "man"

needs_man = pytest.mark.skipif(not shutil.which("man"), reason="man is not installed")


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A virtual environment's folders, as pip lays them: programs beside pages."""
    folder = tmp_path / "venv"
    pages = folder / "share" / "man" / "man1"
    shutil.copytree(PAGES, pages)
    for page in pages.iterdir():  # the tests' own environment has pages too
        page.write_text(f"{page.read_text(encoding='utf-8')}.SH OF THIS FOLDER\n", encoding="utf-8")
    (folder / "bin").mkdir()
    return folder


@needs_man
@pytest.mark.parametrize("name", ["theta", "git-theta-merge"])
def test_git_help_opens_the_page_that_is_beside_the_program(repo, prefix, name):
    # man looks beside the folders of PATH.
    environment = {name: value for name, value in os.environ.items() if name != "MANPATH"}
    path = f"{prefix / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["git", "help", name],
        cwd=repo.path,
        env={**environment, "PATH": path, "MANPAGER": "cat"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "OF THIS FOLDER" in done.stdout
    assert "--strategy" in done.stdout or name == "theta"


def on_a_terminal(prefix: Path, *args: str) -> str:
    """What the command prints to a terminal of its own, with ``prefix`` for its environment."""
    code = f"import sys; sys.prefix = {str(prefix)!r}; sys.argv = ['git-theta', *{args}]\n"
    code += "from git_theta.cli.app import main; main()"
    ours, theirs = pty.openpty()
    # Nobody may answer: a pager that waits would hang.
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "MANPAGER": "cat", "TERM": "dumb"},
    )
    os.close(theirs)
    printed = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # closed at the other end
            break
        if not piece:
            break
        printed += piece
    os.close(ours)
    assert child.wait() == 0
    return printed.decode()


@needs_man
def test_help_of_a_command_opens_its_page_on_a_terminal(prefix):
    printed = on_a_terminal(prefix, "merge", "--help")
    assert "GIT-THETA-MERGE(1)" in printed
    assert "Usage:" not in printed
    assert "Usage: git theta merge" in on_a_terminal(prefix, "merge", "-h")


def test_help_is_printed_where_there_is_no_page_or_no_terminal(tmp_path, theta, repo):
    assert "Usage: git theta merge" in on_a_terminal(tmp_path, "merge", "--help")
    assert theta(repo, "merge", "--help").stdout.startswith("Usage: git theta merge")
