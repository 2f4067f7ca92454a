"""Revisions and paths of commands: what Git takes is taken, and what is neither is an error."""

from __future__ import annotations

import json

import pytest

from tests.support import checkpoints
from tests.support.repo import Repo

OLD, NEW = "models/a.safetensors", "models/b.safetensors"
ARRAYS = checkpoints.tensors(layers=11)
FIRST = checkpoints.safetensors(ARRAYS)
TUNED = checkpoints.safetensors(ARRAYS | {"layer.10.bias": ARRAYS["layer.10.bias"] + 1})


@pytest.fixture
def history(once, home, model) -> Repo:
    """``first`` (tag v1), ``tuned`` and ``renamed`` on main, ``aside`` on side."""

    def work() -> None:
        model.commit_files({OLD: FIRST}, "first")
        model.git("tag", "-a", "-m", "one", "v1")
        model.git("checkout", "-q", "-b", "side")
        model.commit_files({OLD: checkpoints.safetensors(ARRAYS | {"w": ARRAYS["layer.0.bias"]})})
        model.git("commit", "-q", "--amend", "-m", "aside")
        model.git("checkout", "-q", "main")
        model.commit_files({OLD: TUNED}, "tuned")
        model.git("mv", OLD, NEW)
        model.git("commit", "-q", "-m", "renamed")
        model.git("branch", "-q", "-u", "side")

    once("history", home, model, work)
    return model


def subjects(done) -> list[str]:
    assert done.returncode == 0, done.stderr
    return [line.rpartition(": ")[2] for line in done.stdout.splitlines() if line[0] != " "]


def test_log_takes_what_git_log_takes(history, theta):
    assert subjects(theta(history, "log", "v1..main")) == ["renamed", "tuned"]
    every = subjects(theta(history, "log", "--all", "^v1"))
    assert sorted(every) == ["aside", "renamed", "tuned"]
    # One path is followed through renames, also where it is gone.
    assert subjects(theta(history, "log", NEW)) == ["renamed", "tuned", "first"]
    assert subjects(theta(history, "log", "--", OLD)) == ["renamed", "tuned", "first"]
    below = Repo(history.path / "models")
    assert subjects(theta(below, "log", "@{u}^..", "--", ".")) == ["renamed", "tuned"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nosuch"], "nosuch: no such revision or file"),
        (["--nonsense"], "--nonsense"),
        (["--", ":(nonsense)x"], "git log failed: fatal: Invalid pathspec magic 'nonsense'"),
    ],
)
def test_log_names_what_it_does_not_understand(history, theta, args, words):
    done = theta(history, "log", *args)
    assert done.returncode != 0
    assert words in done.stderr
    assert done.stdout == ""


def test_log_says_when_there_is_nothing(history, theta, make_repo):
    done = theta(history, "log", "main..v1", "--", "nosuch")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no commit changed a checkpoint: main..v1 -- nosuch" in done.stderr
    assert "has no commit yet" in theta(make_repo("unborn"), "log").stderr


def test_log_says_what_happened_to_each_checkpoint(history, theta):
    done = theta(history, "log", NEW)
    lines = [line.strip() for line in done.stdout.splitlines() if line[0] == " "]
    assert lines[0] == f"renamed: {OLD} -> {NEW}: no tensor changed, 0 B stored"
    assert lines[1].startswith(f"modified: {OLD}: 1 of 22 tensors changed, ")
    assert lines[2].startswith(f"added: {OLD}: 22 tensors, ")
    rows = [row["checkpoints"] for row in json.loads(theta(history, "log", "--json").stdout)]
    assert [(row["state"], row["path"], row["before"], row["changed"]) for [row] in rows] == [
        ("renamed", NEW, OLD, 0),
        ("modified", OLD, OLD, 1),
        ("added", OLD, OLD, 0),
    ]
    history.git("rm", "-q", NEW)
    history.git("commit", "-q", "-m", "gone")
    assert f"deleted: {NEW}: 22 tensors\n" in theta(history, "log", "-n", "1").stdout


def test_paths_and_revisions_of_a_subfolder(history, theta):
    below = Repo(history.path / "models")
    assert subjects(theta(below, "log", "b.safetensors")) == ["renamed", "tuned", "first"]
    for spec in ("b.safetensors", "HEAD:./b.safetensors", f":{NEW}"):
        done = theta(below, "show", spec)
        assert "layer.10.bias" in done.stdout, (spec, done.stderr)
    assert theta(below, "show", "HEAD:b.safetensors").returncode == 22
    assert "outside the repository" in theta(below, "show", "../../x").stderr


def test_show_without_a_revision_is_the_index(history, theta):
    def shown(spec: str) -> tuple[str, str]:
        done = theta(history, "show", spec, "--json")
        return json.loads(done.stdout)["hash"], done.stderr

    first, tuned = shown(f"v1:{OLD}")[0], shown(f"HEAD:{NEW}")[0]
    assert shown(NEW) == (tuned, "")
    history.write(NEW, FIRST)
    said = f"{NEW}: this is the version in the index; the file may differ (git theta status)\n"
    assert shown(NEW) == (tuned, said)
    history.git("add", NEW)
    assert shown(NEW) == (first, "")


def test_layers_are_listed_in_their_natural_order(history, theta):
    rows = json.loads(theta(history, "show", NEW, "--json").stdout)["tensors"]
    names = [row["name"] for row in rows if row["name"].endswith("bias")]
    assert names == [f"layer.{number}.bias" for number in range(11)]


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ("nosuch", 22, "git theta ls-files lists the checkpoints"),
        ("main", 2, "git theta show main:PATH"),
        ("nosuch:x", 2, "nosuch: no such revision"),
        ("v1:nosuch", 22, "git theta ls-files v1 lists the checkpoints"),
        ("new.safetensors", 22, "git add new.safetensors"),
        ("v1:models", 22, "no such file"),
    ],
)
def test_show_names_what_is_not_there(history, theta, spec, code, words):
    history.write("new.safetensors", FIRST)
    done = theta(history, "show", spec)
    assert done.returncode == code
    assert words in done.stderr


@pytest.mark.parametrize("name", ["ls-files", "fetch", "fsck"])
@pytest.mark.parametrize("rev", ["v1..main", f"HEAD:{NEW}"])
def test_what_is_no_tree_is_an_error(history, theta, name, rev):
    done = theta(history, name, rev)
    assert done.returncode == 2, done.stdout
    assert rev in done.stderr


def test_ls_files_of_a_tree_and_of_nothing(history, theta):
    assert "a.safetensors" in theta(history, "ls-files", "v1:models").stdout
    history.git("rm", "-q", "-r", "models")
    assert "no checkpoint in the index" in theta(history, "ls-files").stderr


def test_checkout_names_what_it_cannot_replace(history, theta):
    (history.path / NEW).unlink()
    for path, words in (
        ("main", "git checkout main switches to a commit"),
        (".gitattributes", ".gitattributes: not a checkpoint in the index"),
        (NEW, f"git checkout -- {NEW}"),
    ):
        done = theta(history, "checkout", path)
        assert done.returncode == 2
        assert words in done.stderr


def test_checkout_takes_folders_and_says_when_there_is_nothing_to_do(history, theta):
    done = theta(history, "checkout", "models")
    assert (done.returncode, done.stdout) == (0, "")
    assert "Nothing to restore: 1 checkpoint, no manifest" in done.stderr
    history.write(NEW, history.git("show", f"HEAD:{NEW}").encode() + b"\n")
    below = Repo(history.path / "models")
    assert theta(below, "checkout", ".").stdout == f"Restored {NEW}\n"
    assert history.read(NEW) == TUNED


def test_merge_and_replay_take_any_revision(history, theta):
    done = theta(history, "merge", ":/tuned", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "Already up to date.\n"), done.stderr
    assert "merged no checkpoint" in theta(history, "replay", "HEAD^{/tuned}").stderr


def test_no_command_passes_over_what_is_not_there(history, theta):
    before = history.git("status", "--porcelain")
    for args in (
        ["replay", "nosuch"],
        ["merge", "nosuch"],
        ["merge", "v1..nosuch"],
        ["merge", "side", "nosuch..main", "--dry-run"],
        ["strategies", "nosuch"],
        ["resolve", NEW, "nosuch"],
        ["untrack", "nosuch"],
        ["add", "nosuch", "--update", "sparse", "--data", NEW],
    ):
        done = theta(history, *args)
        assert done.returncode not in (0, 3), args
        assert "nosuch" in done.stderr, args
    assert history.git("status", "--porcelain") == before


@pytest.mark.parametrize(
    "words",
    [
        ("log",),
        ("diff", "--staged"),
        ("du",),
        ("blame", "x.safetensors"),
        ("similar", "HEAD"),
        ("show", "HEAD:x.safetensors"),
        ("replay", "HEAD"),
        ("merge", "other", "--strategy", "average"),
    ],
    ids=lambda words: words[0],
)
def test_a_branch_without_a_commit_is_called_that(make_repo, theta_here, words):
    """Of HEAD they said that there is no such revision, and a merge printed git's usage."""
    done = theta_here(make_repo("unborn"), *words)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "the current branch has no commit yet"
    assert "hint: git theta track" in done.stderr
