"""Merges beside other work: commits of another terminal, other operations, a full disk."""

from __future__ import annotations

import pytest

from git_theta import manifest
from git_theta.errors import MergeError
from git_theta.git.merge_commit import held
from git_theta.git.merge_heads import find_heads
from git_theta.merge.branches import prepare
from git_theta.merge.completion import complete
from git_theta.merge.rules.request import Request
from git_theta.workspace import open_workspace
from tests.support import checkpoints
from tests.support.branches import PATH, branch, changed, commit, file, is_settled
from tests.support.failures import on_tmpfs
from tests.support.repo import Repo


@pytest.fixture
def branches(once, home, model) -> Repo:
    """Main with ``one`` and ``two``, which overlap in layer.0, and ``far``, which does not."""

    def work() -> None:
        commit(model, file(), "base")
        branch(model, "one", file(w0=1))
        branch(model, "two", file(w0=2))
        branch(model, "far", file(w1=8))

    once("safety", home, model, work)
    return model


def test_a_commit_of_another_terminal_is_not_dropped(branches):
    with open_workspace(branches.path) as workspace:
        repo = workspace.repo
        prepared = prepare(workspace, find_heads(repo, ["one", "far"]), Request())
        made = branches.commit_files({PATH: file(b1=3), "notes": b"mine"})
        with pytest.raises(MergeError, match=r"main moved from \w{12} while it was merged"):
            complete(workspace, prepared, None, commit=True)
        assert branches.git("rev-parse", "HEAD") == made
        assert branches.read(PATH) == file(b1=3)
        assert is_settled(branches)
        # Another branch at the same commit is another branch.
        prepared = prepare(workspace, find_heads(repo, ["one", "far"]), Request())
        branches.git("checkout", "-q", "-b", "other")
        with pytest.raises(MergeError, match="another branch was checked out"):
            complete(workspace, prepared, None, commit=True)
        branches.git("checkout", "-q", "main")
        branches.write("notes", b"staged")
        branches.git("add", "notes")
        with pytest.raises(MergeError, match="changes are staged"):
            complete(workspace, prepared, None, commit=True)
        branches.git("reset", "-q", "--hard")
        complete(workspace, prepared, None, commit=True)
    assert branches.git("rev-parse", "HEAD^1") == made
    assert branches.read(PATH) == file(w0=1, w1=8, b1=3)
    assert is_settled(branches)


def test_nobody_moves_the_branch_while_it_is_held(branches):
    with open_workspace(branches.path) as workspace:
        head = find_heads(workspace.repo, ["one"]).head
        with held(workspace.repo, head):
            for args in (("commit", "--allow-empty", "-m", "x"), ("checkout", "one")):
                assert branches.process(*args).returncode != 0
            with pytest.raises(MergeError, match="another git command is at work"):  # noqa: SIM117
                with held(workspace.repo, head):
                    pass
        assert branches.git("rev-parse", "main") == head.commit
        branches.git("checkout", "-q", "one")


def test_a_merge_does_not_begin_in_another_operation(branches, theta):
    float16 = {name: array.astype("f2") for name, array in changed(w0=3).items()}
    branch(branches, "half", checkpoints.safetensors(float16))  # replays cannot add it
    for begin, end, way_out in (
        (("checkout", "-q", "one", "--", "."), ("reset", "-q", "--hard"), "changes are staged"),
        (("cherry-pick", "half"), ("cherry-pick", "--abort"), "git cherry-pick --continue"),
        (("revert", "--no-commit", "main"), ("revert", "--abort"), "git revert --continue"),
        (("rebase", "half"), ("rebase", "--abort"), "git rebase --continue"),
        (("bisect", "start"), ("bisect", "reset"), "git bisect reset"),
        (("merge", "half"), ("merge", "--abort"), "git merge --abort"),
    ):
        branches.git("checkout", "-q", "one" if begin[0] != "checkout" else "main")
        branches.process(*begin)
        before = branches.git("status", "--porcelain")
        done = theta(branches, "merge", "far", "--strategy", "average")
        assert done.returncode == 34, begin
        assert way_out in done.stderr, begin
        assert branches.git("status", "--porcelain") == before
        branches.git(*end)


_FULL = """
import os, sys
from pathlib import Path
from git_theta.cli.app import cli
from git_theta.errors import StoreError
disk, texts = Path(sys.argv[1]), Path({texts!r})
ours = disk / "ours"
ours.write_bytes((texts / "ours").read_bytes())
with open(disk / "filler", "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
os.chdir({repo!r})
args = [texts / "base", ours, texts / "theirs", 7, {path!r}]
try:
    cli(["merge-driver", "--", *map(str, args)], standalone_mode=False)
except StoreError as error:
    print(error.message, ours.read_bytes() == (texts / "ours").read_bytes(), os.listdir(disk))
"""


def test_a_full_disk_leaves_ours_to_git(branches, tmp_path):
    more = changed() | {f"more.{number}": changed()["layer.0.bias"] for number in range(40)}
    branch(branches, "more", checkpoints.safetensors(more))
    (tmp_path / "texts").mkdir()
    for name, rev in (("base", "main"), ("ours", "one"), ("theirs", "more")):
        text = branches.git("show", f"{rev}:{PATH}").encode() + b"\n"
        assert manifest.is_manifest(text)
        (tmp_path / "texts" / name).write_bytes(text)
    script = _FULL.format(texts=str(tmp_path / "texts"), repo=str(branches.path), path=PATH)
    said = on_tmpfs("size=64k", script, tmp_path / "disk")
    assert said.startswith("no space left on the disk True ['")
    assert ".tmp-" not in said
