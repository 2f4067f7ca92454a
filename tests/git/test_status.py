"""`git theta status`: renames, conflicts, sparse checkouts, and what to type next."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support import checkpoints
from tests.support.branches import PATH, branch, commit, file
from tests.support.repo import Repo

MODEL = "models/m 1.safetensors"
BASE = checkpoints.safetensors(checkpoints.tensors())


def status(theta, repo: Repo, code: int = 0) -> str:
    done = theta(repo, "status")
    assert done.returncode == code, done.stderr
    return done.stdout


def rows(theta, repo: Repo) -> dict[str, dict[str, object]]:
    return {
        row["path"]: row
        for row in json.loads(theta(repo, "status", "--json").stdout)["checkpoints"]
    }


def test_renames_are_told(model, theta):
    model.commit_files({"a.safetensors": BASE, "b.safetensors": file()})
    model.git("mv", "a.safetensors", "c.safetensors")
    arrays = checkpoints.tensors() | {"layer.0.bias": np.zeros(32, np.float32)}
    model.write("c.safetensors", checkpoints.safetensors(arrays))
    model.git("add", "c.safetensors")
    said = status(theta, model)
    assert said.startswith("renamed: a.safetensors -> c.safetensors: 1 of 4 tensors changed, ")
    assert said.count("\n") == 1
    row = rows(theta, model)["c.safetensors"]
    assert (row["staged"], row["before"], row["changed"]) == ("renamed", "a.safetensors", 1)


def test_paths_are_those_to_type_in_the_folder(model, theta):
    model.commit_files({MODEL: BASE})
    (model.path / MODEL).unlink()
    said = status(theta, Repo(model.path / "models"))
    assert said == (
        "m 1.safetensors: the file is gone: git checkout -- 'm 1.safetensors', "
        "or git rm 'm 1.safetensors'\n"
    )
    model.git("rm", "-q", MODEL)
    assert status(theta, model) == f"deleted: {MODEL}: 4 tensors\n"
    model.git("reset", "-q", "--hard")
    assert status(theta, model) == "1 checkpoint, nothing changed\n"


@pytest.fixture
def contest(once, home, model) -> Repo:
    """On branch ``rte``, in conflict with ``mnli``, which both changed layer.0.weight."""

    def work() -> None:
        commit(model, file(), "base")
        branch(model, "rte", file(w0=1))
        branch(model, "mnli", file(w0=2, b1=2))

    once("contest", home, model, work)
    model.git("checkout", "-q", "rte")
    assert model.process("merge", "mnli").returncode == 1
    return model


def test_a_conflict_is_told_with_the_way_out(contest, theta):
    said = status(theta, contest, 36)
    way = f"git theta resolve {PATH} --strategy"
    assert said == f"{PATH}: in conflict: 1 tensor (rte, mnli): {way} NAME\n"
    row = rows(theta, contest)[PATH]
    assert row["staged"] == "conflict"
    assert row["conflict"] == {"tensors": 1, "ours": "rte", "theirs": "mnli", "only_in": None}
    done = theta(contest, *way.split()[2:], "average")
    assert done.returncode == 0, done.stderr
    assert "in conflict" not in status(theta, contest)


def test_a_conflict_with_a_deletion(contest, theta):
    contest.git("merge", "--abort")
    contest.git("checkout", "-q", "-b", "gone", "rte~")
    contest.git("rm", "-q", PATH)
    contest.git("commit", "-q", "-m", "gone")
    assert contest.process("merge", "mnli").returncode == 1
    alone = f"git add {PATH} keeps it, git rm {PATH} removes it"
    assert status(theta, contest, 36) == f"{PATH}: in conflict: only in mnli: {alone}\n"


def test_a_sparse_checkout_is_no_damage(model, theta, remote, tmp_path):
    model.commit_files({"in/m.safetensors": BASE, "out/m.safetensors": file()})
    model.git("push", "-q", str(remote.path), "main")
    remote.git("config", "uploadpack.allowFilter", "true")
    options = ("--filter=blob:none", "--sparse", "-b", "main")
    clone = Repo.clone(f"file://{remote.path}", tmp_path / "clone", *options)
    clone.git("sparse-checkout", "set", "in")
    blob = clone.git("rev-parse", "HEAD:out/m.safetensors")
    assert status(theta, clone) == "1 checkpoint, nothing changed\n"
    assert list(rows(theta, clone)) == ["in/m.safetensors"]
    missing = clone.git("rev-list", "--objects", "--all", "--missing=print")
    assert f"?{blob}" in missing  # nothing was downloaded for it


def test_a_bare_repository_has_no_status(remote, theta):
    done = theta(remote, "status")
    assert done.returncode == 2
    assert "git theta ls-files HEAD" in done.stderr


@pytest.mark.parametrize(
    "words", [("track", "*.pt"), ("track", "--suggest"), ("untrack", "*.pt"), ("checkout",)]
)
def test_what_works_on_files_refuses_a_bare_repository(remote, theta_here, words):
    """`track` wrote .gitattributes among Git's own files, where nothing reads it."""
    done = theta_here(remote, *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{words[0]} needs a work tree\n  hint: git worktree add")
    assert not (remote.path / ".gitattributes").exists()


def test_doctor_looks_for_no_files_in_a_bare_repository(remote, theta_here):
    told = theta_here(remote, "doctor").stdout
    assert ".gitattributes" not in told
    assert "hooks" in told


def test_adding_ours_in_a_conflict_warns_and_says_how_to_mean_it(contest, theta):
    assert "dropped" not in contest.process("diff").stderr.decode()
    done = contest.process("add", PATH)
    assert done.returncode == 0
    said = done.stderr.decode()
    assert f"{PATH}: this is rte unchanged: the changes of mnli are dropped" in said
    assert "if that is meant, go on" in said
    # The hint, followed: the conflict is back.
    assert f"git checkout --merge -- {PATH}, git theta resolve {PATH} --strategy NAME" in said
    contest.process("checkout", "--merge", "--", PATH)
    assert "in conflict: 1 tensor" in status(theta, contest, 36)
    done = theta(contest, "resolve", PATH, "--strategy", "take", "-p", "side=ours")
    assert (done.returncode, "dropped" in done.stderr) == (0, False), done.stderr
    assert contest.read(PATH) == file(w0=1, b1=2)


def test_committing_ours_in_a_conflict_warns_too(contest):
    done = contest.process("commit", "-a", "-m", "merged")
    said = done.stderr.decode()
    assert done.returncode == 0, said
    assert "the changes of mnli are dropped" in said
    assert "git reset --keep HEAD~, git merge again" in said
    contest.git("reset", "-q", "--keep", "HEAD~")
    assert contest.process("merge", "mnli").returncode == 1
    # Anything but ours is a choice.
    contest.write(PATH, file(w0=2, b1=2))
    assert "dropped" not in contest.process("add", PATH).stderr.decode()
