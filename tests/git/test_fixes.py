"""What fsck and doctor propose, typed as it is printed, mends."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import checkpoints
from tests.support.repo import Repo

FIRST = checkpoints.safetensors()
SECOND = checkpoints.safetensors(checkpoints.finetuned())
PATH = "sub folder/model.safetensors"


@pytest.fixture
def good(once, home: Path, model: Repo, remote: Repo) -> Repo:
    """A repository that doctor and fsck are content with, and what it has pushed."""
    once("good", home, model, lambda: model.commit_files({PATH: FIRST}))
    model.git("remote", "add", "origin", str(remote.path))
    model.git("push", "-q", "origin", "main")
    return model


def _type(repo: Repo, command: str) -> None:
    """Run what is printed, up to what a person is told besides, in a subfolder."""
    line = command.partition(", then")[0].partition(", which")[0]
    done = subprocess.run(
        ["sh", "-c", line], cwd=(repo.path / PATH).parent, capture_output=True, text=True
    )
    assert done.returncode == 0, (line, done.stderr)


def _nothing_installed(repo: Repo) -> None:
    repo.git("config", "--global", "--remove-section", "filter.theta")


def _another_command(repo: Repo) -> None:
    repo.git("config", "--global", "filter.theta.required", "false")


def _no_hooks(repo: Repo) -> None:
    for hook in (repo.path / ".git/hooks").iterdir():
        hook.unlink()
    repo.git("config", "theta.autoHooks", "false")


def _hook_without_x(repo: Repo) -> None:
    (repo.path / ".git/hooks/pre-push").chmod(0o644)


def _no_pattern(repo: Repo) -> None:
    (repo.path / ".gitattributes").unlink()


def _overridden(repo: Repo) -> None:
    folder = repo.path / "sub folder"
    (folder / ".gitattributes").write_bytes((repo.path / ".gitattributes").read_bytes())
    for attributes in (repo.path / ".gitattributes", folder / ".gitattributes"):
        with attributes.open("a") as file:
            file.write("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")


def _manifest_left(repo: Repo) -> None:
    repo.write(PATH, repo.process("show", f":{PATH}").stdout)


def _whole_in_git(repo: Repo) -> None:
    without_us = ("-c", "filter.theta.process=", "-c", "filter.theta.required=false")
    repo.write("whole.safetensors", SECOND)
    repo.git(*without_us, "add", "whole.safetensors")
    repo.git(*without_us, "commit", "-q", "-m", "whole")


@pytest.mark.parametrize(
    ("harm", "check"),
    [
        (_nothing_installed, "configuration"),
        (_another_command, "configuration"),
        (_no_hooks, "hooks"),
        (_hook_without_x, "hooks"),
        (_no_pattern, ".gitattributes"),
        (_overridden, ".gitattributes"),
        (_manifest_left, "checkpoints"),
        (_whole_in_git, "whole files"),
    ],
)
def test_what_doctor_proposes(harm: Callable[[Repo], None], check: str, good: Repo, theta):
    harm(good)
    inside = Repo((good.path / PATH).parent)

    def wrong() -> list[dict[str, str]]:
        rows = json.loads(theta(inside, "doctor", "--json").stdout)
        return [row for row in rows if row["check"] == check and not row["ok"]]

    found = wrong()
    assert found
    for row in found:
        _type(good, row["fix"])
    assert wrong() == []


def _fixes(text: str) -> list[str]:
    return [line.partition("fix: ")[2] for line in text.splitlines() if "fix: " in line]


@pytest.mark.parametrize("loss", ["damaged", "missing", "cut"])
def test_what_fsck_proposes(loss: str, model: Repo, theta):
    model.commit_files({PATH: FIRST})
    for file in (model.path / ".git/theta/objects").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            file.unlink()
            if loss != "missing":
                file.write_bytes(content[:-1] if loss == "cut" else content[:-1] + b"?")
    before = theta(model, "fsck")
    assert before.returncode == 1
    (fix,) = set(_fixes(before.stdout))
    _type(model, fix)
    assert theta(model, "fsck", "--full").returncode == 0


def test_what_fsck_and_doctor_propose_for_a_remote(good: Repo, remote: Repo, tmp_path: Path, theta):
    """A push went past the hook, and then the commit was given up here."""
    good.commit_files({PATH: SECOND})
    good.git("push", "-q", "--no-verify", "origin", "main")
    good.git("reset", "-q", "--hard", "HEAD~1")
    (doctors,) = _fixes(theta(good, "doctor").stdout)
    asked = theta(good, *shlex.split(doctors)[2:])
    assert asked.returncode == 1
    (fix,) = _fixes(asked.stdout)
    _type(good, fix)
    assert theta(good, "fsck", "--remote").returncode == 0
    assert (Repo.clone(remote.path, tmp_path / "clone").path / PATH).read_bytes() == SECOND


def test_a_manifest_that_cannot_be_read(model: Repo, theta):
    """Nothing makes it again: the command shows the commits that have a sound one."""
    model.commit_files({PATH: FIRST})
    cut = model.process("show", f"HEAD:{PATH}").stdout[:-10]
    blob = model.git("hash-object", "-w", "--stdin", stdin=cut)
    model.git("update-index", "--cacheinfo", f"100644,{blob},{PATH}")
    model.git("commit", "-q", "-m", "broken")
    (fix,) = _fixes(theta(model, "fsck").stdout)
    command = fix.partition(" shows")[0]
    assert "broken" in model.git(*shlex.split(command)[1:])
