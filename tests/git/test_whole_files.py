"""Tracked files that somebody committed without git-theta: whole, or as pointers of Git LFS."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from tests.support import checkpoints
from tests.support.repo import Repo

FIRST = checkpoints.safetensors(checkpoints.tensors(rows=64))
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize 7\n" % (b"a" * 64)
WITHOUT_US = ("-c", "filter.theta.process=", "-c", "filter.theta.required=false")


@pytest.fixture
def whole(model: Repo) -> str:
    """A commit with a checkpoint and a pointer in it as they are, and a checkpoint of ours."""
    model.commit_files({"ours.safetensors": FIRST})
    model.write("sub/it's.safetensors", FIRST)
    model.write("pointer.safetensors", POINTER)
    model.write("empty.safetensors", b"")
    model.git(*WITHOUT_US, "add", "sub", "pointer.safetensors", "empty.safetensors")
    model.git(*WITHOUT_US, "commit", "-q", "-m", "whole")
    return model.git("rev-parse", "HEAD")


def test_status_and_ls_files_name_them_and_the_way_out(model, theta, whole):
    before = theta(model, "ls-files", "HEAD~1")
    assert before.stderr == ""
    for args in (["status"], ["ls-files"], ["ls-files", "HEAD"], ["status", "--json"]):
        lines = theta(model, *args).stderr.splitlines()
        assert len(lines) == 2, args
        pointer, file = lines
        assert pointer.startswith(f"pointer.safetensors: a Git LFS pointer (since {whole[:12]})")
        size = f"{len(FIRST) / 1000:.1f} KB"
        assert file.startswith(
            f"sub/it's.safetensors: {size}, stored whole by Git (since {whole[:12]})"
        )
    command = file.rpartition("): ")[2].partition(", then")[0]
    model.git(*shlex.split(command)[1:])
    assert len(theta(model, "status").stderr.splitlines()) == 1
    assert model.git("show", ":sub/it's.safetensors").startswith('{"git-theta"')


@pytest.mark.parametrize("command", [["status"], ["ls-files"], ["ls-files", "HEAD"]])
def test_a_script_reads_them(command, model, theta, whole):
    pointer, file = json.loads(theta(model, *command, "--json").stdout)["whole_files"]
    assert pointer["is_pointer"]
    assert file["path"] == "sub/it's.safetensors"
    assert (file["size"], file["commit"]) == (len(FIRST), whole)
    assert shlex.split(file["fix"])[:3] == ["git", "add", "--renormalize"]


def test_they_are_named_as_they_are_typed_in_a_folder(model, theta, whole):
    shown = theta(Repo(model.path / "sub"), "status").stderr
    assert shown.startswith("../pointer.safetensors: ")
    assert "git add --renormalize -- 'it'\"'\"'s.safetensors'" in shown


def test_doctor_names_them(model, theta, whole):
    done = theta(model, "doctor")
    assert done.returncode == 1
    assert (
        f"sub/it's.safetensors: {len(FIRST):,} bytes, whole in Git, since commit {whole[:12]}"
        in (done.stdout)
    )
    assert "git lfs smudge < pointer.safetensors > pointer.safetensors.tmp" in done.stdout


def test_a_push_warns_once_and_goes_on(model, whole, remote):
    model.git("remote", "add", "origin", str(remote.path))
    done = model.process("push", "-q", "origin", "main")
    assert done.returncode == 0
    assert b"git-theta: pointer.safetensors: a Git LFS pointer" in done.stderr
    assert f"(since {whole[:12]})".encode() in done.stderr
    assert b"ours.safetensors" not in done.stderr
    model.commit()
    assert b"pointer" not in model.process("push", "-q", "origin", "main").stderr


def test_paths_that_were_not_tracked_then_are_ignored(repo, theta, remote):
    repo.commit_files({"a.safetensors": FIRST})
    theta(repo, "install")
    assert repo.process("push", "-q", str(remote.path), "main").stderr == b""
    assert theta(repo, "ls-files", "HEAD").stderr.startswith("no checkpoint")


def test_the_check_before_a_commit(model, theta, whole):
    assert theta(model, "hook", "pre-commit").returncode == 0  # they are committed already
    model.write("new.safetensors", FIRST)
    model.git(*WITHOUT_US, "add", "new.safetensors")
    done = theta(model, "hook", "pre-commit")
    assert done.returncode == 1
    assert "new.safetensors" in done.stderr
    assert "staged" in done.stderr
    assert "pointer" not in done.stderr
    model.git("add", "--renormalize", "new.safetensors")
    assert theta(model, "hook", "pre-commit").returncode == 0


def test_pre_commit_is_offered_that_check(model, theta):
    file = Path(__file__).parents[2] / ".pre-commit-hooks.yaml"
    (hook,) = yaml.safe_load(file.read_text())
    assert hook["pass_filenames"] is False
    words = shlex.split(hook["entry"])
    assert words[0] == "git-theta"
    assert theta(model, *words[1:]).returncode == 0
