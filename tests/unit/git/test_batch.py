from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from git_theta.errors import GitError
from git_theta.git.batch import Batch
from git_theta.git.repository import Repository
from tests.support.repo import Repo

LIMIT = 1 << 20


@pytest.fixture
def batch(repo: Repo):
    batch = Batch(repo.path, {})
    yield batch
    batch.close()


def test_blobs_by_every_kind_of_name(repo, batch):
    repo.commit_files({"a b/ü.txt": b"content\n", "empty": b""})
    blob = repo.git("rev-parse", "HEAD:a b/ü.txt")
    for spec in (blob, "HEAD:a b/ü.txt", ":0:a b/ü.txt"):
        assert batch.read(spec, LIMIT) == b"content\n"
    assert batch.read("HEAD:empty", LIMIT) == b""


def test_what_is_not_there_or_no_blob_is_none(repo, batch):
    repo.commit_files({"folder/file": b"x"})
    for spec in ("HEAD:nothing", "HEAD:a b c 5", "0" * 40, "nonsense", "HEAD", "HEAD:folder"):
        assert batch.read(spec, LIMIT) is None
        assert batch.read("HEAD:folder/file", LIMIT) == b"x"  # and the next answer is its own


@pytest.mark.parametrize("size", [1001, 20 << 20])
def test_what_is_too_large_is_none_and_not_read(size, repo, batch):
    repo.commit_files({"large": bytes(size), "small": b"x"})
    assert batch.read("HEAD:large", 1000) is None
    assert batch.read("HEAD:small", 1000) == b"x"
    assert batch.read("HEAD:large", size) == bytes(size)


def test_a_prefix_is_asked_for(repo, batch):
    repo.commit_files({"yes": b"magic and more", "no": b"something", "short": b"mag"})
    assert batch.read("HEAD:yes", LIMIT, b"magic") == b"magic and more"
    assert batch.read("HEAD:no", LIMIT, b"magic") is None
    assert batch.read("HEAD:short", LIMIT, b"magic") is None
    assert batch.read("HEAD:yes", LIMIT, b"magic and more") == b"magic and more"


def test_commits_made_meanwhile_are_seen(repo, batch):
    repo.commit(a=b"first")
    assert batch.read("HEAD:a", LIMIT) == b"first"
    repo.commit(a=b"second")
    assert batch.read("HEAD:a", LIMIT) == b"second"


def test_threads_share_it(repo, batch):
    contents = {f"file{number}": bytes([number]) * number * 100 for number in range(40)}
    repo.commit_files(contents)
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(lambda path: batch.read(f"HEAD:{path}", LIMIT), contents)
    assert list(read) == list(contents.values())


def test_it_starts_again_after_being_closed(repo, batch):
    repo.commit(a=b"x")
    assert batch.read("HEAD:a", LIMIT) == b"x"
    batch.close()
    batch.close()
    assert batch.read("HEAD:a", LIMIT) == b"x"


def test_a_process_that_dies_is_an_error_and_the_next_question_starts_another(repo, batch):
    repo.commit(a=b"x")
    assert batch.read("HEAD:a", LIMIT) == b"x"
    batch._process.kill()
    batch._process.wait()
    with pytest.raises(GitError, match="ended early"):
        batch.read("HEAD:a", LIMIT)
    assert batch.read("HEAD:a", LIMIT) == b"x"


def test_no_repository_is_an_error(tmp_path, capfd):
    batch = Batch(tmp_path, {})
    with pytest.raises(GitError):
        batch.read("HEAD:a", LIMIT)
    assert "not a git repository" in capfd.readouterr().err


def test_a_new_index_takes_no_answer_from_another_thread(repo):
    repo.commit_files({"large": bytes(8 << 20), "small": b"x"})
    with Repository.discover(repo.path) as opened, ThreadPoolExecutor(1) as beside:
        answer = beside.submit(lambda: [opened.read_blob("HEAD:large", 8 << 20) for _ in range(20)])
        while not answer.done():
            os.utime(opened.index_file)
            assert opened.read_blob(":small") == b"x"
        assert answer.result() == [bytes(8 << 20)] * 20
