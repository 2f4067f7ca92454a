"""Walks over trees, ranges and everything that a repository holds."""

from __future__ import annotations

import os
import stat

import pytest

from git_theta.errors import GitError
from git_theta.git import Entry, Repository, entries, reachable
from tests.support.repo import Repo

MANIFEST = b'{"git-theta":1,"format":"none"}\n'
ODD = 'dir with space/ünïcode\n"quoted"\t.txt'


@pytest.fixture
def found(repo: Repo):
    with Repository.discover(repo.path) as found:
        yield found


def test_manifests_are_told_by_their_content(repo, found):
    repo.commit_files(
        {
            "model": MANIFEST,
            "nearly": b'{"git-thet":1}\n',
            "short": b'{"git-the',
            "only": b'{"git-theta":',
            "empty": b"",
            "large": bytes(1 << 20),
            ODD: MANIFEST + b"odd",
        }
    )
    listed = {entry.path: text for entry, text in found.manifests(found.tree("HEAD"))}
    assert listed == {"model": MANIFEST, ODD: MANIFEST + b"odd"}
    sizes = {entry.size for entry, _ in found.manifests(found.index())}
    assert sizes == {len(MANIFEST), len(MANIFEST) + 3}


def test_entries_that_are_not_there_are_left_out(repo, found):
    repo.commit(a=MANIFEST)
    asked = [
        Entry("gone", "1" * 40),
        *found.tree("HEAD"),
        Entry("a", repo.git("rev-parse", "HEAD")),
    ]
    assert [entry.path for entry, _ in found.manifests(asked)] == ["a"]


def test_many_entries(repo, found, monkeypatch):
    monkeypatch.setattr(entries, "_SLICE", 7)
    repo.commit_files({f"{number}": MANIFEST + bytes([65 + number]) for number in range(30)})
    listed = {entry.path for entry, _ in found.manifests(found.tree("HEAD"))}
    assert listed == {f"{number}" for number in range(30)}


def blobs(repo: Repo, *specs: str) -> set[str]:
    return {repo.git("rev-parse", spec) for spec in specs}


def test_a_range_has_what_is_new_in_it(repo, found):
    repo.commit(a=b"one", kept=b"kept")
    repo.commit_files({"a": b"two", "dir/b c": b"three"})
    new = list(found.range_entries(["HEAD"], ["HEAD~1"]))
    assert {entry.blob for entry in new} == blobs(repo, "HEAD:a", "HEAD:dir/b c")
    head = repo.git("rev-parse", "HEAD")
    assert {(entry.path, entry.commit) for entry in new} == {("a", head), ("dir/b c", head)}
    everything = list(found.range_entries(["HEAD"], []))
    assert len(everything) == 4
    assert list(found.range_entries([], [])) == []
    assert list(found.range_entries(["HEAD"], ["HEAD"])) == []


def test_a_range_takes_options(repo, found, remote):
    repo.git("remote", "add", "origin", str(remote.path))
    repo.commit(a=b"one")
    repo.git("push", "-q", "origin", "main")
    repo.commit(a=b"two")
    repo.git("tag", "-a", "v1", "-m", "tag")
    (new,) = found.range_entries(["v1"], ["--remotes=origin"])
    assert new.blob == repo.git("rev-parse", "HEAD:a")
    (old,) = found.range_entries(["--remotes=origin"], [])
    assert old.blob == repo.git("rev-parse", "HEAD~1:a")


def test_a_range_of_thousands_of_revisions(repo, found):
    commit = repo.commit(a=b"one")
    assert len(list(found.range_entries([commit] * 50_000, []))) == 1


def test_odd_paths_in_a_range(repo, found):
    odd_bytes = os.fsdecode(b"bytes \xff")
    files = {ODD: b"odd", odd_bytes: b"x", " leading": b"y", ":100644 M": b"z"}
    repo.commit_files(files)
    assert {entry.path for entry in found.range_entries(["HEAD"], [])} == set(files)


def test_a_merge_has_what_none_of_its_parents_has(repo, found):
    repo.commit(a=b"base", b=b"base")
    repo.git("checkout", "-q", "-b", "side")
    repo.commit(a=b"theirs", b=b"theirs")
    repo.git("checkout", "-q", "main")
    repo.commit(a=b"ours")
    repo.git("merge", "-q", "-X", "ours", "-m", "merge", "side")
    repo.commit(c=b"later")
    repo.git("reset", "-q", "--soft", "HEAD~1")
    repo.write("a", b"neither")
    repo.git("add", "a")
    repo.git("commit", "-q", "--amend", "-m", "merge")
    head = repo.git("rev-parse", "HEAD")
    (a, c) = (e for e in found.range_entries(["HEAD"], ["HEAD^1", "HEAD^2"]))
    assert [(e.path, e.commit) for e in (a, c)] == [("a", head), ("c", head)]
    assert a.blob == repo.git("rev-parse", "HEAD:a")


def test_links_and_submodules_are_no_files(repo, found):
    (repo.path / "link").symlink_to("a")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    repo.git("add", "link")
    repo.commit(a=b"one")
    assert [entry.path for entry in found.range_entries(["HEAD"], [])] == ["a"]


def test_what_tags_are_of(repo, found):
    commit = repo.commit(a=b"one")
    repo.git("tag", "-a", "-m", "tag", "v1")
    tag, tree = repo.git("rev-parse", "v1"), repo.git("rev-parse", "HEAD^{tree}")
    asked = [tag, commit, tree, "1" * 40, "--all", "HEAD\n--all"]
    assert found.peel(asked) == {
        tag: ("commit", commit),
        commit: ("commit", commit),
        tree: ("tree", tree),
    }


@pytest.mark.parametrize("rev", ["no-such-branch", "1" * 40])
def test_a_range_that_cannot_be_walked_is_an_error(rev, repo, found):
    repo.commit(a=b"one")
    with pytest.raises(GitError, match="rev-list failed"):
        list(found.range_entries([rev], []))


def test_a_walk_over_lost_objects_is_an_error_not_a_shorter_answer(repo, found):
    repo.commit(a=b"one")
    blob = repo.git("rev-parse", "HEAD:a")
    repo.commit(b=b"two")
    file = repo.path / ".git/objects" / blob[:2] / blob[2:]
    file.chmod(stat.S_IWUSR)
    file.unlink()
    with pytest.raises(GitError, match=blob):
        list(reachable.all_entries(found))


def test_a_walk_may_be_left_in_the_middle(repo, found):
    repo.commit_files({f"file{number}": b"%d" % number for number in range(2000)})
    walk = found.range_entries(["HEAD"], [])
    next(walk)
    walk.close()


def test_everything_that_anything_holds_on_to(repo, found, tmp_path):
    def content(text: str) -> str:
        return repo.git("hash-object", "--stdin", stdin=text.encode())

    repo.commit(a=b"history")
    repo.commit(a=b"on main")
    repo.git("checkout", "-q", "-b", "branch")
    repo.commit(a=b"on a branch")
    repo.git("tag", "-a", "-m", "t", "tag")
    repo.commit(a=b"reset away")
    repo.git("reset", "-q", "--hard", "main")
    repo.write("a", b"stashed")
    repo.git("stash", "-q")
    second = Repo(tmp_path / "second")
    repo.git("worktree", "add", "-q", "--detach", str(second.path))
    second.commit(a=b"on no branch, in a work tree")
    second.write("a", b"staged in a work tree")
    second.git("add", "a")
    repo.write("a", b"staged")
    repo.git("add", "a")

    held = {entry.blob for entry in reachable.all_entries(found)}
    for text in (
        "history",
        "on main",
        "on a branch",
        "reset away",
        "stashed",
        "on no branch, in a work tree",
        "staged in a work tree",
        "staged",
    ):
        assert content(text) in held, text
    # Each once, and the same from the other work tree.
    assert len(held) == len(list(reachable.all_entries(found)))
    with Repository.discover(second.path) as there:
        assert {entry.blob for entry in reachable.all_entries(there)} == held


def test_an_operation_under_way_holds_on_to_its_commits(repo, found):
    repo.commit(a=b"base")
    repo.git("checkout", "-q", "-b", "other")
    repo.commit(a=b"only merged")
    blob = repo.git("rev-parse", "HEAD:a")
    repo.git("checkout", "-q", "main")
    repo.commit(a=b"ours")
    repo.process("merge", "other")
    repo.git("branch", "-q", "-D", "other")
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("add", "a")  # the index no longer has the stages
    assert (repo.path / ".git/MERGE_HEAD").is_file()
    assert blob in {entry.blob for entry in reachable.all_entries(found)}


def test_what_was_fetched_last_is_held(repo, found, make_repo):
    other = make_repo("other")
    other.commit(a=b"fetched")
    repo.git("fetch", "-q", str(other.path), "main")
    blob = other.git("rev-parse", "HEAD:a")
    assert blob in {entry.blob for entry in reachable.all_entries(found)}


def test_what_cannot_be_read_is_an_error_for_it_may_hold_something(repo, found):
    (repo.path / ".git/FETCH_HEAD").mkdir()
    with pytest.raises(GitError, match="FETCH_HEAD"):
        list(reachable.all_entries(found))


def test_an_empty_repository_holds_nothing(found, remote):
    assert list(reachable.all_entries(found)) == []
    assert list(reachable.all_entries(Repository.discover(remote.path))) == []


def test_a_shallow_clone_can_be_walked(repo, tmp_path):
    repo.commit(a=b"old")
    repo.commit(a=b"new")
    clone = Repo.clone(repo.path.as_uri(), tmp_path / "clone", "--depth", "1")
    with Repository.discover(clone.path) as found:
        assert [entry.size for entry in reachable.all_entries(found)] == [3]
