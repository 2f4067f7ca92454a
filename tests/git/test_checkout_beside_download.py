"""A clone decodes what has come while the rest is still downloaded."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from git_theta import manifest
from tests.support import checkpoints
from tests.support.repo import Repo

FIRST = checkpoints.safetensors(checkpoints.tensors(rows=64))
SECOND = checkpoints.safetensors(checkpoints.tensors(rows=64, seed=1))
SECONDS = 20


@pytest.fixture
def pushed(model: Repo, server) -> Repo:
    model.commit_files({"a.safetensors": FIRST, "b.safetensors": SECOND})
    model.git("push", "-q", server.repository(), "main")
    return model


def objects_of(repo: Repo, path: str) -> set[str]:
    text = repo.git("show", f"HEAD:{path}").encode() + b"\n"
    return set(manifest.parse(text).objects())


def hold(server, held: set[str], condition) -> list[bool]:
    """Let the server answer for ``held`` objects only when a condition holds; say if it did."""
    seen = []

    def before(path: str) -> None:
        if path.rpartition("/")[2] in held and not seen:
            end = threading.Event()
            for _ in range(SECONDS * 20):
                if condition() or end.wait(0.05):
                    break
            seen.append(condition())

    server.before = before
    return seen


def clone(server, path, *options: str) -> subprocess.CompletedProcess[str]:
    url = f"{server.url}/team/model.git"
    return subprocess.run(
        ["git", *options, "clone", "-q", url, str(path)], capture_output=True, text=True
    )


@pytest.mark.parametrize("direct_above", ["512m", "0"])
def test_a_file_is_there_before_the_objects_of_the_other(pushed, server, tmp_path, direct_above):
    """Through git's filter, and by the hook that writes large files."""
    held = objects_of(pushed, "b.safetensors") - objects_of(pushed, "a.safetensors")
    assert held
    target = tmp_path / "clone" / "a.safetensors"
    seen = hold(server, held, lambda: target.is_file() and target.read_bytes() == FIRST)
    done = clone(server, tmp_path / "clone", "-c", f"theta.directAbove={direct_above}")
    assert done.returncode == 0, done.stderr
    assert seen == [True]
    assert (tmp_path / "clone" / "b.safetensors").read_bytes() == SECOND


def test_an_object_that_does_not_come_is_explained_and_stops_no_other(pushed, server, tmp_path):
    (lost, *_) = objects_of(pushed, "b.safetensors") - objects_of(pushed, "a.safetensors")
    server.objects()[lost].unlink()
    done = clone(server, tmp_path / "clone")
    assert done.returncode != 0
    assert "1 object is missing locally and on every remote" in done.stderr
    assert (tmp_path / "clone" / "a.safetensors").read_bytes() == FIRST
    assert not (tmp_path / "clone" / "b.safetensors").exists()
    told = done.stderr.index("missing locally")
    assert told < done.stderr.index("b.safetensors")


def test_a_hook_that_is_ended_leaves_no_temporary_file(pushed, server, tmp_path):
    """A scheduler ends a job so, a terminal that is closed its programs."""
    held = objects_of(pushed, "b.safetensors") - objects_of(pushed, "a.safetensors")
    target, ended = tmp_path / "clone", threading.Event()

    def half_written() -> list[Path]:
        found = [*target.glob(".tmp-*"), *target.glob(".git/theta/tmp/.tmp-*")]
        with suppress(FileNotFoundError):  # of objects, which come and go
            return [file for file in found if file.stat().st_size == len(SECOND)]
        return []

    seen = hold(server, held, lambda: bool(half_written()) or ended.is_set())
    answer = server.before

    def before(path: str) -> None:
        answer(path)
        if seen == [True] and not ended.is_set():
            os.killpg(command.pid, signal.SIGTERM)
            ended.wait(SECONDS)

    server.before = before
    url = f"{server.url}/team/model.git"
    command = subprocess.Popen(
        ["git", "-c", "theta.directAbove=0", "clone", "-q", url, str(target)],
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    command.communicate(timeout=SECONDS)  # the hook has its standard error, too
    ended.set()
    assert seen == [True]
    assert command.returncode == -signal.SIGTERM
    assert not half_written()
