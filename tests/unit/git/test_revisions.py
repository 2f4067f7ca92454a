"""Revisions and paths as Git reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from git_theta.errors import UsageError
from git_theta.git import Repository, revisions
from tests.support.repo import Repo


@pytest.fixture
def history(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """``one`` (tag v1), ``two`` and ``three`` on main, ``aside`` on side, its upstream main."""
    repo.commit_files({"sub/a": b"1"}, "one")
    repo.git("tag", "-a", "-m", "v1", "v1")
    repo.git("checkout", "-q", "-b", "side")
    repo.commit_files({"sub/a": b"aside"}, "aside")
    repo.git("checkout", "-q", "main")
    repo.commit_files({"sub/a": b"2"}, "two")
    repo.commit_files({"b": b"3"}, "three")
    repo.git("branch", "-q", "-u", "side")
    monkeypatch.chdir(repo.path / "sub")
    return repo


def test_arguments_are_parted_as_git_log_parts_them(history: Repo) -> None:
    cases: list[tuple[list[str], list[str] | None, str, list[str]]] = [
        ([], None, "", []),
        (["v1"], None, "v1", []),
        (["v1..main"], None, "v1..main", []),
        (["^v1", "main"], [], "v1..main", []),
        (["main...side"], None, "main...side", []),
        (["main^!"], None, "main^!", []),
        (["main^@"], None, "main^@", []),
        (["@{u}"], None, "side", []),
        ([":/two"], None, "main~", []),
        (["-"], None, "side", []),
        (["main", "a"], None, "main", ["a"]),
        (["main"], ["gone", "-x", "main"], "main", ["gone", "-x", "main"]),
        (["a", "../b"], None, "", ["a", "../b"]),
        (["*.gone", ":/b"], None, "", ["*.gone", ":/b"]),
        ([], ["nosuch"], "", ["nosuch"]),
    ]
    with Repository.discover() as repo:
        for words, paths, meant, kept in cases:
            commits, found = revisions.split(repo, words, paths)
            expected = history.git("rev-parse", *meant.split()).split() if meant else []
            assert sorted(commits) == sorted(_peeled(history, expected)), words
            assert found == kept, words


def _peeled(history: Repo, ids: list[str]) -> list[str]:
    return [name if name.startswith("^") else history.git("rev-parse", name) for name in ids]


def test_what_is_neither_is_named(history: Repo) -> None:
    (history.path / "sub/side").touch()
    cases: list[tuple[list[str], list[str] | None, str]] = [
        (["nosuch"], None, "nosuch: no such revision or file"),
        (["main", "a", "nosuch"], None, "nosuch: no such revision or file"),
        (["a", "v1"], None, "v1: no such revision or file"),
        (["nosuch"], [], "nosuch: no such revision"),
        (["a"], [], "a: no such revision"),
        (["main..nosuch"], [], "main..nosuch: no such revision"),
        (["side@{u}"], [], "side@{u}: no upstream configured for branch 'side'"),
        (["side"], None, "side is both a revision and a file"),
        (["--all"], None, "--all: no such revision or file"),
        (["v1:sub/a"], None, "v1:sub/a is not a commit"),
        (["v1^{tree}"], None, "v1^{tree} is not a commit"),
    ]
    with Repository.discover() as repo:
        for words, paths, message in cases:
            with pytest.raises(UsageError) as caught:
                revisions.split(repo, words, paths)
            assert caught.value.message == message


def test_trees_commits_and_files(history: Repo) -> None:
    with Repository.discover() as repo:
        for rev in ("v1", "main~", "@{u}", "v1:sub", "v1:./", ":/two", "v1^{tree}"):
            assert repo.tree(revisions.tree_of(repo, rev)), rev
        for rev in ("nosuch", "v1..main", "^v1", "v1:sub/a", "main:nosuch", "-x", ""):
            with pytest.raises(UsageError, match=r"."):
                revisions.tree_of(repo, rev)
        assert revisions.commit_of(repo, "v1") == history.git("rev-parse", "v1^{commit}")
        with pytest.raises(UsageError, match="is not a commit"):
            revisions.commit_of(repo, "v1:sub")
        one = history.git("rev-parse", "v1:sub/a")
        for spec in ("v1:sub/a", "v1:./a", "main~2:../sub/a"):
            assert revisions.blob_of(repo, spec) == one, spec
        assert revisions.blob_of(repo, ":./a") == history.git("rev-parse", ":sub/a")
        assert revisions.blob_of(repo, "v1:a") is None
        with pytest.raises(UsageError, match="nosuch: no such revision"):
            revisions.blob_of(repo, "nosuch:a")


def test_paths_are_relative_to_the_folder(history: Repo) -> None:
    with Repository.discover() as repo:
        assert revisions.path_in(repo, "a") == "sub/a"
        assert revisions.path_in(repo, "../b") == "b"
        assert revisions.path_in(repo, "..") == "."
        assert revisions.path_in(repo, str(history.path / "b")) == "b"
        with pytest.raises(UsageError, match="outside the repository"):
            revisions.path_in(repo, "../../b")
    with Repository.discover(Path("..")) as repo:
        assert revisions.path_in(repo, "a") == "a"
