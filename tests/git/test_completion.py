"""What `git theta completion` prints, in the shells themselves and as Git's completion calls it."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repo import Repo

# As Git's completion does: it looks for a function of the command's name, and fills COMPREPLY.
BASH = """
ask() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _git_theta; echo "${COMPREPLY[*]}"
}
eval "$(git theta completion bash)"
ask git theta me
ask git -C /tmp theta show --
ask git theta diff --sort ''
COMP_WORDS=(git-theta st); COMP_CWORD=1; COMPREPLY=()
_git_theta_completion git-theta; echo "${COMPREPLY[*]}"
complete -p git-theta
"""
FISH = """
git theta completion fish | source
complete -C "git theta me"
complete -C "git theta diff --sor"
complete -C "git-theta me"
"""
ZSH = """
autoload -U compinit; compinit -u
eval "$(git theta completion zsh)"
whence -w _git-theta; echo $_comps[git-theta]
"""


GITS = next(
    (
        file
        for file in (
            Path("/usr/share/bash-completion/completions/git"),
            Path("/etc/bash_completion.d/git"),
        )
        if file.exists()
    ),
    None,
)


def typed(repo: Repo, keys: str, wanted: str) -> str:
    """What a terminal shows once ``keys`` were typed into bash with Git's own completion."""
    start = repo.path / "bashrc"
    start.write_text(f"source {GITS}\neval \"$(git theta completion bash)\"\nPS1='READY> '\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        ["bash", "--noprofile", "--rcfile", str(start), "-i"],
        cwd=repo.path,
        env={**os.environ, "PATH": path, "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as shell:
        os.close(theirs)
        try:
            shown = _shown(ours, "READY> ")
            os.write(ours, keys.encode())
            return shown + _shown(ours, wanted)
        finally:
            shell.kill()
            os.close(ours)


def _shown(terminal: int, wanted: str) -> str:
    shown = ""
    while wanted not in shown and select.select([terminal], [], [], 60)[0]:
        shown += os.read(terminal, 1 << 16).decode()
    return shown


@pytest.mark.skipif(GITS is None, reason="git's completion for bash is not installed")
def test_tab_completes_through_gits_own_completion(repo: Repo) -> None:
    assert "git theta similar " in typed(repo, "git theta simi\t", "similar ")
    shown = typed(repo, "git theta \t\t", "untrack")
    assert {"blame", "report", "untrack"} <= {*shown.split()}


def run(repo: Repo, shell: str, script: str, *options: str) -> list[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [shell, *options, "-c", script],
        cwd=repo.path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return [line.rstrip() for line in done.stdout.splitlines()]


def test_bash(repo: Repo) -> None:
    assert run(repo, "bash", BASH, "--norc") == [
        "merge",
        "--json  --help",
        "name  change  size",
        "status strategies",
        "complete -o default -o nosort -F _git_theta_completion git-theta",
    ]


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish(repo: Repo) -> None:
    words = [line.split("\t")[0] for line in run(repo, "fish", FISH)]
    assert words == ["merge", "--sort", "merge"]


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh(repo: Repo) -> None:
    assert run(repo, "zsh", ZSH, "-f") == ["_git-theta: function", "_git_theta_completion"]
