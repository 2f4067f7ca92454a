"""What the hook is told, and what is remembered of remotes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from git_theta.errors import GitError, UsageError
from git_theta.git import Repository
from git_theta.git.entries import of_commits
from git_theta.git.remotes import fetch_remote, find_remote
from git_theta.transfer import RefUpdate, parse_updates, records
from tests.support.repo import Repo

ID, NONE = "a" * 40, "0" * 40


@pytest.fixture
def found(repo: Repo):
    repo.git("remote", "add", "origin", "https://somebody:secret@example.com/model.git")
    with Repository.discover(repo.path) as found:
        yield found


@pytest.mark.parametrize("local", ["HEAD", "HEAD@{1 second ago}", ":/a message with blanks", "(x)"])
def test_the_local_name_may_hold_blanks(local):
    (update,) = parse_updates(f"{local} {ID} refs/heads/y {NONE}\n")
    assert update == RefUpdate(local, ID, "refs/heads/y", NONE)
    assert update.creates
    assert not update.deletes


def test_deletions_and_refs_of_ours():
    lines = (
        f"(delete) {NONE} refs/theta/objects/{'b' * 40} {ID}\nx {ID} refs/theta/objects/c {ID}\n"
    )
    gone, other = parse_updates(lines)
    assert gone.deletes
    assert gone.names_objects
    assert not other.names_objects


@pytest.mark.parametrize(
    "line",
    [
        "HEAD",
        f"HEAD {ID} refs/heads/y",
        f"HEAD {ID} refs/heads/y not-an-id",
        f"HEAD@{{1\nsecond ago}} {ID} refs/heads/y {NONE}",
    ],
)
def test_a_line_that_is_not_understood_stops_the_push(line):
    with pytest.raises(GitError, match="cannot be read"):
        parse_updates(f"{line}\n")


def test_records_are_kept_apart_by_url_not_by_name(repo, found):
    origin = find_remote(found, "origin")
    records.add(found, origin, commits=[ID], objects=["b" * 64])
    assert records.load(found, origin) == records.Known((ID,), frozenset({"b" * 64}))
    repo.git("remote", "rename", "origin", "other")
    assert records.load(found, find_remote(found, "other")).commits == (ID,)
    repo.git("remote", "set-url", "other", "https://example.com/another.git")
    assert records.load(found, find_remote(found, "other")).commits == ()


def test_a_password_is_neither_written_nor_counts(repo, found):
    first = find_remote(found, "origin")
    repo.git("remote", "set-url", "origin", "https://somebody:new@example.com/model.git")
    assert find_remote(found, "origin").key == first.key
    assert fetch_remote(found, "origin").key == first.key


def test_objects_that_go_elsewhere_count_for_themselves(repo, found):
    first = find_remote(found, "origin")
    repo.git("config", "lfs.url", "https://example.com/lfs")
    assert find_remote(found, "origin").key != first.key


def test_several_may_record_at_once(found):
    origin = find_remote(found, "origin")

    def add(number: int) -> None:
        records.add(found, origin, commits=[f"{number:040x}"], objects=[f"{number:064x}"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(24)))
    known = records.load(found, origin)
    assert len(known.commits) == len(known.objects) == 24


@pytest.mark.parametrize("content", [b"\xff\xfe", b"commit --all\nobject x\ncommit abc\n"])
def test_a_damaged_record_knows_nothing(content, found):
    origin = find_remote(found, "origin")
    records.add(found, origin, commits=[ID])
    (found.theta_dir / "uploaded" / origin.key).write_bytes(content)
    assert records.load(found, origin) == records.Known((), frozenset())


@pytest.mark.parametrize(
    ("name", "said"), [("--help", "no remote called"), ("-x:y/z", "cannot be the URL")]
)
def test_a_remote_is_never_an_option(name, said, found):
    with pytest.raises(UsageError, match=said):
        find_remote(found, name)


def test_a_revision_is_one_line(repo, found):
    with pytest.raises(GitError, match="line break"):
        list(of_commits([], [f"{ID}\n--all"], repo.path, {}))
