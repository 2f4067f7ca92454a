"""Commands that messages propose, with names that would run other commands in a shell."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest

from tests.support import checkpoints
from tests.support.branches import branch

EVIL = "w'; touch pwned; '"


def _run_hint(repo, error: str) -> str:
    """Type what follows ``hint:``, with a function in place of git; return what that was given."""
    command = re.search(r"hint: (.*)", error)[1].partition(", where")[0].partition(" lists")[0]
    script = 'git() { printf "%s\\n" "$@"; };' + command.replace("SIDE", "ours")
    done = subprocess.run(["sh", "-c", script], cwd=repo.path, capture_output=True, text=True)
    assert not (repo.path / "pwned").exists(), command
    return done.stdout


@pytest.mark.parametrize(
    "args", [("show", EVIL), ("show", f"HEAD:{EVIL}"), ("log", f"{EVIL}"), ("checkout", EVIL)]
)
def test_what_the_user_typed_is_quoted(args, model, theta):
    model.commit_files({"m.safetensors": checkpoints.safetensors()})
    done = theta(model, *args)
    assert done.returncode != 0
    _run_hint(model, done.stderr)


def test_a_file_that_is_not_in_the_index(model, theta):
    model.write(f"{EVIL}.safetensors", checkpoints.safetensors())
    shown = theta(model, "show", f"{EVIL}.safetensors")
    assert _run_hint(model, shown.stderr) == f"add\n{EVIL}.safetensors\n"


def test_a_tensor_of_a_stranger_is_quoted(model, theta):
    """Its name stands in the rule that the message proposes for a conflict."""

    def file(dtype: str, value: float) -> bytes:
        return checkpoints.safetensors({EVIL: np.full(4, value, dtype)})

    model.commit_files({"m.safetensors": file("f4", 0)})
    branch(model, "half", file("i4", 1), "m.safetensors")
    model.commit_files({"m.safetensors": file("f4", 2)})
    done = theta(model, "merge", "half", "--strategy", "average")
    assert done.returncode != 0
    hint = next(line for line in done.stderr.splitlines() if "hint:" in line)
    assert f"{EVIL}=take:side=ours" in _run_hint(model, hint).splitlines()
