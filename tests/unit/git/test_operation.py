"""What git is doing, from what it leaves behind."""

from __future__ import annotations

import pytest

from git_theta.git import Repository
from git_theta.git.operation import (
    drop_rescheduled,
    operation,
    shows_differences,
    squashed,
    under_way,
)

GIT = "/usr/bin/git"


@pytest.fixture
def found(repo, monkeypatch):
    monkeypatch.chdir(repo.path)
    with Repository.discover() as opened:
        yield opened


def of(found, *commands: str, environ=None, size: int = 7):
    lines = [command.split() for command in commands]
    return operation(found, "m.safetensors", size, environ or {}, lines)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (f"{GIT} merge rte", "merge"),
        ("git -C there -c a.b=c --no-pager merge rte", "merge"),
        ("git --git-dir=x merge-tree --write-tree a b", "merge"),
        ("/usr/lib/git-core/git-merge-recursive base -- a b", "merge"),
        (f"{GIT} rebase main", "replay"),
        ("git cherry-pick x", "replay"),
        ("git revert x", "replay"),
        ("git stash pop", "replay"),
        ("git am -3", "replay"),
        ("git checkout -m x", "replay"),
    ],
)
def test_the_closest_git_command_decides(found, command, expected):
    shells = ("sh -c git-theta", "")
    assert of(found, *shells, command, "git merge other", "bash") == expected


@pytest.mark.parametrize("command", ["git mg rte", "python tool.py", "git --version"])
def test_where_the_command_says_nothing_only_merge_names_heads(found, command):
    assert of(found, command) == "replay"
    assert of(found, command, environ={"GITHEAD_0123": "rte"}) == "merge"


def test_a_virtual_ancestor_has_longer_markers(found, repo):
    assert of(found, "git merge x", size=9) == "ancestor"
    repo.write(".gitattributes", b"*.safetensors conflict-marker-size=20\n")
    assert of(found, "git merge x", size=20) == "merge"
    assert of(found, "git merge x", size=22) == "ancestor"


def test_a_merge_that_a_rebase_makes_again(found, repo):
    done = repo.path / ".git/rebase-merge/done"
    done.parent.mkdir()
    done.write_text("pick 123 x\n")
    assert of(found, "git rebase --rebase-merges main") == "replay"
    assert under_way(found) == "replay"
    done.write_text("pick 123 x\nmerge -C 456 rte # Merge branch 'rte'\n")
    assert of(found, "git rebase --rebase-merges main") == "merge"
    assert under_way(found) == "merge"


def test_a_step_that_a_rebase_would_do_again(found, repo):
    commit = repo.commit()
    folder = repo.path / ".git/rebase-merge"
    folder.mkdir()
    (folder / "done").write_text(f"pick 123 x\nfixup -C {commit} # x\n")
    assert squashed(found) == commit
    with (folder / "done").open("a") as done:  # as git writes it once the step is refused
        done.write("pick 123 x\n")
    todo = folder / "git-rebase-todo"
    todo.write_text(f"fixup -C {commit} # x\npick 456 y\n")
    for _ in range(2):  # the next step is left alone
        drop_rescheduled(found)
        assert todo.read_text() == "pick 456 y\n"
    (folder / "done").write_text(f"pick {commit} x\n")
    assert squashed(found) is None


def test_what_is_under_way(found, repo):
    assert under_way(found) == "replay"
    (repo.path / ".git/MERGE_HEAD").write_text("0" * 40)
    assert under_way(found) == "merge"


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        ("git diff HEAD~1 HEAD", True),
        ("git -C repo log -p", True),
        ("/usr/lib/git-core/git show", True),
        ("git checkout main", False),
        ("git stash pop", False),
        ("git archive HEAD", False),
        ("git cat-file --filters HEAD:m.safetensors", False),
        ("git merge topic", False),
    ],
)
def test_what_a_diff_only_shows_is_told_from_what_is_written(words, shows):
    assert shows_differences([["sh", "-c", "theta"], words.split(), ["bash"]]) is shows
