"""Merges whose base is given, whose result goes to a file, and of what some branches added."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load

from tests.support import checkpoints
from tests.support.branches import BASE, FIRST, PATH, SECOND, changed, file, is_settled, recipe
from tests.support.repo import Repo

CUT = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def cut(arrays: dict[str, np.ndarray]) -> dict[str, bytes]:
    """The model in two files, with their index."""
    names = sorted(arrays)
    parts = [dict.fromkeys(names[:2]), dict.fromkeys(names[2:])]
    places = {name: CUT[n] for n, part in enumerate(parts) for name in part}
    files = {
        CUT[n]: checkpoints.safetensors({name: arrays[name] for name in part})
        for n, part in enumerate(parts)
    }
    return {**files, INDEX: json.dumps({"metadata": {}, "weight_map": places}).encode()}


def imported(repo: Repo, name: str, files: dict[str, bytes]) -> None:
    """A model from a hub: a branch with a root of its own."""
    attributes = repo.read(".gitattributes")
    repo.git("checkout", "-q", "--orphan", name)
    repo.git("rm", "-rfq", ".")
    repo.write(".gitattributes", attributes)
    repo.git("add", ".gitattributes")
    repo.commit_files(files, name)


@pytest.fixture
def hub(once, home, model) -> Repo:
    """Three imported models, the last in two files; ``base`` is what two of them began from."""

    def work() -> None:
        imported(model, "base", {PATH: file(), "config.json": b"{}\n"})
        imported(model, "rte", {PATH: file(w0=1, w1=2), "config.json": b"{}\n"})
        imported(model, "mnli", {PATH: file(w0=3), "config.json": b'{"labels": 3}\n'})
        imported(model, "cut", cut(changed(w0=5, b1=1)))
        model.git("checkout", "-q", "base")

    once("hub", home, model, work)
    return model


def test_fine_tunes_without_a_common_ancestor(hub, theta):
    failed = theta(hub, "merge", "rte", "mnli", "--strategy", "task_arithmetic")
    assert failed.returncode == 34
    assert "hint: git theta merge rte mnli --base REV" in failed.stderr

    options = ("--base", "base", "--strategy", "task_arithmetic", "-p", "lambda=0.5")
    done = theta(hub, "merge", "rte", "mnli", *options)
    assert done.returncode == 0, done.stderr
    merged = load(hub.read(PATH))
    np.testing.assert_allclose(merged[FIRST], BASE[FIRST] + 2, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(merged[SECOND], changed(w1=2)[SECOND])  # one side's
    assert hub.read("config.json") == b'{"labels": 3}\n'
    assert is_settled(hub)
    parents = hub.git("rev-parse", "HEAD^@").split()
    assert parents == hub.git("rev-parse", "base~1", "rte", "mnli").split()
    assert [side["name"] for side in recipe(hub)["contributors"]] == ["rte", "mnli"]
    assert theta(hub, "replay").stdout == f"{PATH}: the same bits\n"


def test_a_model_in_one_file_and_another_in_two(hub, theta):
    done = theta(hub, "merge", "rte", "cut", "--base", "base", "--strategy", "average")
    assert done.returncode == 0, done.stderr
    assert not hub.path.joinpath(PATH).exists()
    merged = load(hub.read(CUT[0])) | load(hub.read(CUT[1]))
    np.testing.assert_allclose(merged[FIRST], BASE[FIRST] + 3, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(merged[SECOND], changed(w1=2)[SECOND])
    assert set(json.loads(hub.read(INDEX))["weight_map"].values()) == set(CUT)
    assert is_settled(hub)


def test_the_result_in_a_file_and_nothing_else(hub, theta_here, tmp_path):
    before = hub.git("rev-parse", "HEAD"), hub.git("status", "--porcelain")
    target = tmp_path / "merged.safetensors"
    options = ("--base", "base", "--strategy", "average", "--output", str(target))
    done = theta_here(hub, "merge", "rte", "mnli", *options)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(
        load(target.read_bytes())[FIRST], BASE[FIRST] + 2, rtol=1e-6, atol=1e-7
    )
    assert (hub.git("rev-parse", "HEAD"), hub.git("status", "--porcelain")) == before
    # Several files below a folder.
    done = theta_here(hub, "merge", "rte", "cut", *options[:-1], str(tmp_path / "folder"))
    assert done.returncode == 0, done.stderr
    assert {each.name for each in (tmp_path / "folder").iterdir()} == {*CUT, INDEX}
    # What one branch alone changed is not merged without --all.
    done = theta_here(hub, "merge", "rte", "--base", "base", *options[2:])
    assert "hint: --all also merges" in done.stderr


def test_a_head_that_two_of_three_branches_added(hub, theta_here, tmp_path):
    """Each weight is that of its branch, and a strategy of the whole model has none of it."""
    head = {"head": np.zeros((2, 4), np.float32)}
    for name, more in (("one", 1), ("two", None), ("three", 4)):
        hub.git("checkout", "-q", "-b", name, "base")
        added = {} if more is None else {"head": head["head"] + more}
        hub.commit_files({PATH: checkpoints.safetensors(changed(w0=1) | added)}, name)
    hub.git("checkout", "-q", "base")
    target = str(tmp_path / "merged.safetensors")
    words = ("merge", "one", "two", "three", "--output", target, "--strategy")
    done = theta_here(hub, *words, "average", "-p", "weight=[1,9,2]")
    assert done.returncode == 0, done.stderr
    assert (load((tmp_path / "merged.safetensors").read_bytes())["head"] == 3).all()
    done = theta_here(hub, *words, "ties")
    assert "ties with the whole model needs it on all sides" in done.stderr


def test_a_team_merges_also_what_one_branch_changed(hub, theta):
    hub.git("checkout", "-q", "-b", "work", "base")
    hub.commit_files({".theta.toml": b"[merge]\nall = true\n"}, "all")
    hub.git("checkout", "-q", "-b", "side", "base")
    hub.commit_files({PATH: file(w0=1)}, "side")
    hub.git("checkout", "-q", "work")
    hub.commit_files({PATH: file(w1=4)}, "ours")
    for options, first, second in (((), 0.5, 2), (("--no-all",), 1, 4)):
        done = theta(hub, "merge", "side", "--strategy", "average", *options)
        assert done.returncode == 0, done.stderr
        merged = load(hub.read(PATH))
        np.testing.assert_allclose(merged[FIRST], BASE[FIRST] + first, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(merged[SECOND], BASE[SECOND] + second, rtol=1e-6, atol=1e-7)
        assert recipe(hub)["include_one_sided"] is not bool(options)
        hub.git("reset", "-q", "--hard", "HEAD~1")
    # Git's own merge asks the driver, which reads the same file.
    hub.git("config", "theta.merge.strategy", "average")
    hub.git("merge", "-q", "side")
    np.testing.assert_allclose(load(hub.read(PATH))[SECOND], BASE[SECOND] + 2, rtol=1e-6, atol=1e-7)
    hub.git("reset", "-q", "--hard", "HEAD~1")
    hub.commit_files({".theta.toml": b"[merge]\nall = 1\n"}, "wrong")
    assert "merge.all is not true or false" in theta(hub, "merge", "side").stderr
