from __future__ import annotations

import os

import pytest

from git_theta.git.index_memory import keep, restore
from tests.support.repo import Repo

WRITER = "1234"


@pytest.fixture
def note(repo: Repo):
    """What a hook noted of a file's entry, over which git then wrote another size."""
    repo.commit(model=b"tensor")
    os.utime(repo.path / "model", ns=(1_700_000_000_000_000_001,) * 2)
    repo.git("update-index", "--refresh")
    note, index = repo.path / ".git" / "note", repo.path / ".git" / "index"
    noted = _entry(repo)
    keep(note, WRITER, index, ["model"])
    blob = repo.git("rev-parse", "HEAD:model")
    repo.git("update-index", "--cacheinfo", f"100644,{blob},model")
    assert _entry(repo) != noted
    return note


def _entry(repo: Repo) -> str:
    return repo.git("ls-files", "--debug", "model")


def _restore(repo: Repo, note, writer: str = WRITER) -> set[str]:
    return restore(note, writer, repo.path / ".git" / "index", repo.path)


def test_what_was_noted_is_put_back(repo, note):
    assert _restore(repo, note) == {"model"}
    status = (repo.path / "model").stat()
    assert f"mtime: {status.st_mtime_ns // 10**9}:{status.st_mtime_ns % 10**9}\n" in _entry(repo)


@pytest.mark.parametrize("left", [0, 3, len(WRITER), len(WRITER) + 1, -1])
def test_a_note_of_which_a_part_was_written_is_passed_over(left, repo, note):
    before = _entry(repo)
    note.write_bytes(note.read_bytes()[:left])
    assert _restore(repo, note) == set()
    assert _entry(repo) == before


def test_a_note_of_another_process_is_passed_over(repo, note):
    before = _entry(repo)
    assert _restore(repo, note, "4321") == set()
    assert _entry(repo) == before
