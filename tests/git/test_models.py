"""A model in several files is one for `status`, `show` and `log`, however it is cut."""

from __future__ import annotations

import json

import numpy as np
import pytest

import git_theta
from git_theta.errors import UsageError
from tests.support import checkpoints
from tests.support.repo import Repo

MODEL = "m/model.safetensors"
INDEX = f"{MODEL}.index.json"
BASE = checkpoints.tensors(rows=64, layers=6)
TUNED = BASE | {"layer.0.weight": BASE["layer.0.weight"] + np.float32(1e-3)}


def files(arrays, count: int) -> dict[str, bytes]:
    """The files of the model, and their index as transformers writes it."""
    names = sorted(arrays)
    places = {
        name: f"model-{at * count // len(names) + 1:05}-of-{count:05}.safetensors"
        for at, name in enumerate(names)
    }
    made = {
        f"m/{file}": checkpoints.safetensors({n: arrays[n] for n in names if places[n] == file})
        for file in sorted(set(places.values()))
    }
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    return made | {INDEX: json.dumps(index).encode()}


@pytest.fixture
def sharded(once, home, model: Repo) -> Repo:
    once("sharded", home, model, lambda: model.commit_files(files(BASE, 2), "two files"))
    return model


def test_status_show_and_log_take_the_model_for_one(sharded, theta_here):
    assert theta_here(sharded, "status").stdout == "1 checkpoint, nothing changed\n"
    for path in files(BASE, 2):
        (sharded.path / path).unlink()
    for path, data in files(TUNED, 3).items():
        sharded.write(path, data)
    sharded.git("add", "-A", "m")
    told = theta_here(sharded, "status").stdout
    assert told.startswith(f"modified: {MODEL} in ")
    assert ": 1 of 12 tensors changed, " in told
    assert told.count("\n") == 1
    (row,) = json.loads(theta_here(sharded, "status", "--json").stdout)["models"]
    assert (row["path"], row["changed"], row["added"], row["removed"]) == (MODEL, 1, 0, 0)
    assert row["stored"] < 0.2 * sum(array.nbytes for array in BASE.values())
    sharded.git("commit", "-q", "-m", "three files, tuned")
    tuned, first, *_ = json.loads(theta_here(sharded, "log", "--json").stdout)
    for commit, state, changed in ((tuned, "modified", 1), (first, "added", 0)):
        (row,) = commit["checkpoints"]
        assert (row["path"], row["state"], row["changed"]) == (MODEL, state, changed)
        assert row["tensors"] == 12
    assert f"modified: {MODEL} in " in theta_here(sharded, "log").stdout
    for spec in (MODEL, INDEX, f"HEAD~:{MODEL}", f"HEAD:{INDEX}"):
        shown = theta_here(sharded, "show", spec, "--json")
        found = json.loads(shown.stdout)
        assert {row["name"] for row in found["tensors"]} == BASE.keys(), shown.stderr
        assert len(found["files"]) == (2 if "~" in spec else 3)
        assert found["size"] > sum(array.nbytes for array in BASE.values())
    shown = theta_here(Repo(sharded.path / "m"), "show", "model.safetensors")
    assert "12 tensors in 3 files" in shown.stdout
    shown = theta_here(sharded, "show", MODEL, "layer.0.weight")
    assert "encoded against layer.0.weight of m/model-00001-of-00002.safetensors" in shown.stdout


def test_what_is_wrong_with_one_file_is_told_of_that_file(sharded, theta_here):
    first, second, _ = files(TUNED, 2)
    (sharded.path / second).unlink()
    sharded.write(first, files(TUNED, 2)[first])
    assert theta_here(sharded, "status").stdout == (
        f"{first}: the file differs from the index: git add {first}\n"
        f"{second}: the file is gone: git checkout -- {second}, or git rm {second}\n"
    )
    sharded.git("rm", "-q", "-r", "--cached", "m")
    assert theta_here(sharded, "status").stdout == f"deleted: {MODEL} in 2 files: 12 tensors\n"


def test_a_model_that_is_not_there(sharded, theta_here):
    done = theta_here(sharded, "show", "m/other.safetensors.index.json")
    assert done.returncode == 22
    done = theta_here(sharded, "show", f"HEAD:{INDEX}", "no.such.tensor")
    assert "has no tensor called no.such.tensor" in done.stderr


@pytest.mark.parametrize("rev", ["HEAD", "", None])
@pytest.mark.parametrize("name", [MODEL, INDEX])
def test_python_reads_the_model_as_one(sharded, name, rev):
    state = git_theta.load_state_dict(name, rev, sharded.path, framework="np")
    assert state.keys() == BASE.keys()
    for tensor, array in BASE.items():
        np.testing.assert_array_equal(state[tensor], array, strict=True)
    with git_theta.open(name, rev, sharded.path) as opened:
        assert len(opened) == len(BASE)
        np.testing.assert_array_equal(
            opened.get_slice("layer.5.weight")[3:5], BASE["layer.5.weight"][3:5], strict=True
        )


def test_a_name_in_two_files_of_a_model_is_refused(sharded):
    first, second, _ = files(BASE, 2)
    sharded.commit_files({second: sharded.read(first)}, "the same tensors twice")
    with pytest.raises(UsageError, match="several files of the model have a tensor"):
        git_theta.open(MODEL, repo=sharded.path)


@pytest.mark.parametrize("named", ["m", "m/", ".", MODEL, INDEX])
def test_a_folder_or_a_model_in_conflict_is_resolved_by_its_name(sharded, theta_here, named):
    """Of what else is in conflict there, nothing is touched."""
    for branch, shift in (("one", 1), ("two", 3)):
        sharded.git("checkout", "-q", "-B", branch, "main")
        moved = {name: array + np.float32(shift) for name, array in BASE.items()}
        sharded.commit_files({**files(moved, 2), "m/notes.txt": branch.encode()}, branch)
    assert sharded.process("merge", "one").returncode == 1
    done = theta_here(sharded, "resolve", named, "--strategy", "average")
    assert done.returncode == 0, done.stderr
    assert sharded.git("diff", "--name-only", "--diff-filter=U") == "m/notes.txt"
    merged = git_theta.load_state_dict(MODEL, None, sharded.path, framework="np")
    np.testing.assert_allclose(merged["layer.5.bias"], BASE["layer.5.bias"] + 2, rtol=1e-6)


def test_a_path_from_the_folder_in_which_it_was_typed(sharded, theta_here):
    """As in git, REV:PATH begins at the top: the error names what was meant."""
    here, name = Repo(sharded.path / "m"), "model-00001-of-00002.safetensors"
    done = theta_here(here, "show", f"HEAD:{name}")
    assert done.returncode
    assert done.stderr.endswith(f"hint: git theta show HEAD:./{name}")
    assert theta_here(here, "show", f"HEAD:./{name}").returncode == 0
