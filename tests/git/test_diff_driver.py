"""`git diff`, `git show` and `git log -p` of checkpoints, and what they cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support import checkpoints
from tests.support.repo import Repo

PATH = "models/m 1.safetensors"
BASE = checkpoints.tensors(layers=3)
NEXT = {**BASE, "layer.1.weight": BASE["layer.1.weight"] * np.float32(1.5)}
ROW = ["changed", "layer.1.weight", "F32", "16x32", "0.5", "1.000000"]


@pytest.fixture
def history(once, home, model) -> Repo:
    def work() -> None:
        model.commit_files({PATH: checkpoints.safetensors(BASE)})
        model.commit_files({PATH: checkpoints.safetensors(NEXT)})

    once("diff driver", home, model, work)
    return model


def rows(repo: Repo, *args: str) -> list[list[str]]:
    return [line.split() for line in repo.git(*args).splitlines()]


@pytest.fixture
def seen(history: Repo, tmp_path: Path, monkeypatch) -> Path:
    """The sizes in bytes of the files outside of the work tree that drivers are handed."""
    sizes = tmp_path / "sizes"
    spy = tmp_path / "spy"
    spy.write_text(
        '#!/bin/sh\nfor file; do case "$file" in /dev/null) ;; '
        f"/*) wc -c < \"$file\" >> '{sizes}';; esac; done\n"
    )
    spy.chmod(0o755)
    history.git("config", "diff.theta.command", str(spy))
    history.git("config", "diff.theta.textconv", str(spy))
    return sizes


def largest(sizes: Path) -> int:
    found = max(map(int, sizes.read_text().split()))
    sizes.unlink()
    return found


def test_git_diff_tells_what_changed(history):
    for args in (("HEAD~1", "HEAD"), ("HEAD~1",), ("--cached", "HEAD~1")):
        first, _, row = rows(history, "diff", *args)
        assert " ".join(first) == f"modified: {PATH}: 1 of 6 tensors changed"
        assert row[-8:-2] == ROW or row[1:6] == ROW[1:6]
    turned = rows(history, "diff", "-R", "HEAD~1")
    assert turned[-1][1] == "layer.1.weight"
    assert turned[-1][4] == "0.333"
    assert history.git("diff") == history.git("diff", "HEAD") == ""


def test_git_diff_of_the_work_tree_compares_the_file_itself(history):
    arrays = {**NEXT, "layer.2.bias": NEXT["layer.2.bias"] + np.float32(1)}
    history.write(PATH, checkpoints.safetensors(arrays))
    for args in ((), ("HEAD",), ("--", "models")):
        assert rows(history, "diff", *args)[-1][1] == "layer.2.bias"
    in_folder = Repo(history.path / "models")
    assert rows(in_folder, "diff")[-1][1] == "layer.2.bias"


def test_what_is_added_deleted_and_renamed(history):
    history.git("mv", PATH, "n.safetensors")
    said = history.git("diff", "--cached", "-M")
    assert said == "" or said.startswith("renamed: ")  # equal blobs: git asks no driver
    history.write("n.safetensors", checkpoints.safetensors(BASE))
    history.git("add", ".")
    assert history.git("diff", "--cached", "-M", "HEAD").startswith(
        f"renamed: {PATH} -> n.safetensors: 1 of 6 tensors changed\n"
    )
    history.git("rm", "-q", "--cached", "n.safetensors")
    assert history.git("diff", "--cached").strip() == f"deleted: {PATH}: 6 tensors"
    assert history.git("diff", "-R", "--cached").strip() == f"added: {PATH}: 6 tensors"


def test_show_and_log_compare_a_line_for_each_group_of_tensors(history):
    for args in (("show",), ("log", "-p", "-1"), ("diff", "--no-ext-diff", "HEAD~1")):
        lines = history.git(*args).splitlines()
        sides = [line for line in lines if line.startswith(("+", "-"))]
        changed = [line for line in sides if not line.startswith(("+++", "---"))]
        assert [line.split("  ")[0] for line in changed] == [
            "-layer.*.weight (3)",
            "+layer.*.weight (3)",
        ]
        assert any(line.startswith(" layer.*.bias (3)  F32  32  ") for line in lines)
    assert rows(history, "log", "-p", "-1", "--ext-diff")[-1][1] == "layer.1.weight"


def test_the_text_does_not_depend_on_where_it_is_read(history):
    before = history.git("show")
    arrays = dict(NEXT)
    history.write(PATH, checkpoints.safetensors({**arrays, "layer.0.bias": arrays["layer.1.bias"]}))
    said = history.git("diff", "--no-ext-diff")
    assert said.count("\n-") == said.count("\n+") == 2
    assert history.git("show") == before


@pytest.mark.parametrize(
    "command",
    ["diff HEAD~1 HEAD", "show", "log -p", "diff --no-ext-diff HEAD~1 HEAD", "blame -s HEAD~1"],
)
def test_no_copy_of_a_checkpoint_is_made(seen, history, command):
    arrays = {**NEXT, "large": np.ones((512, 512), np.float32)}
    history.commit_files({PATH: checkpoints.safetensors(arrays)})
    arrays["large"] = arrays["large"] * 2
    history.commit_files({PATH: checkpoints.safetensors(arrays)})
    words = [*command.split(), "--", PATH]
    history.process(*words)
    assert largest(seen) < 1 << 14


def test_other_drivers_get_the_file(seen, history):
    history.git("config", "diff.other.textconv", history.git("config", "diff.theta.textconv"))
    attributes = history.path / ".gitattributes"
    attributes.write_text(attributes.read_text() + "*.safetensors diff=other\n")
    history.git("diff", "HEAD~1", "HEAD")
    assert largest(seen) == len(checkpoints.safetensors(NEXT))
    asked = ("cat-file", "--filters", f"HEAD:{PATH}")
    assert history.process(*asked).stdout == checkpoints.safetensors(NEXT)


def test_objects_that_are_not_here_do_not_stop_git(history):
    for file in (history.path / ".git/theta/objects").rglob("*"):
        if file.is_file():
            file.unlink()
    done = history.process("diff", "HEAD~1", "HEAD")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines()[-1].split()[:2] == ["changed", "layer.1.weight"]
    assert b"git-theta: " in done.stderr
    assert history.process("show").returncode == 0


QUIET = [
    "diff --stat HEAD~1 HEAD",
    "diff --cached --numstat HEAD~1",
    "log --stat",
    "log --raw -M",
    "log -p",
    "status --porcelain",
]


@pytest.mark.parametrize("command", ["add", "stash", "reset"])
def test_no_part_of_a_manifest_is_staged(command, history):
    """One hunk of it without the next was committed, and could not be checked out."""
    arrays = checkpoints.tensors(layers=20)
    history.commit_files({PATH: checkpoints.safetensors(arrays)})
    changed = {name: arrays[name] * np.float32(2) for name in ("layer.1.bias", "layer.18.bias")}
    history.write(PATH, checkpoints.safetensors({**arrays, **changed}))
    if command == "reset":
        history.git("add", PATH)
    staged, before = history.git("ls-files", "-s"), history.read(PATH)
    history.process(command, "-p", stdin=b"y\nn\n" * 5)
    assert (history.git("ls-files", "-s"), history.read(PATH)) == (staged, before)


def test_what_shows_no_values_decodes_nothing(history):
    before = [history.git(*command.split()) for command in QUIET]
    for file in (history.path / ".git/theta/objects").rglob("*"):
        if file.is_file():
            file.unlink()
    for command, said in zip(QUIET, before, strict=True):
        done = history.process(*command.split())
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode().removesuffix("\n") == said
