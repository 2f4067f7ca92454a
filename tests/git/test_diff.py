"""`git theta diff` in real repositories; the figures are those of plain numpy in float64."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from tests.support import checkpoints
from tests.support.repo import Repo

PATH = "model.safetensors"
RANDOM = np.random.default_rng(3)
SHAPE = (192, 128)


def base() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    made = {
        f"model.layers.{layer}.{name}.weight": random.standard_normal(SHAPE).astype(np.float32)
        for layer in (0, 1, 2, 10)
        for name in ("q_proj", "mlp")
    }
    return {"embed.weight": random.standard_normal((64, 32)).astype(np.float32), **made}


BASE = base()
QUERIES = [name for name in BASE if "q_proj" in name]
UPDATED = dict(BASE)
for _name in QUERIES:
    _left, _right = (RANDOM.standard_normal(s).astype(np.float32) for s in ((192, 4), (4, 128)))
    UPDATED[_name] = BASE[_name] + np.float32(0.01) * (_left @ _right)
UPDATED["model.layers.2.mlp.weight"] = BASE["model.layers.2.mlp.weight"].copy()
UPDATED["model.layers.2.mlp.weight"][3, 4] = 7
UPDATED["model.layers.10.mlp.weight"] = BASE["model.layers.10.mlp.weight"].astype(np.float16)
UPDATED["wte.weight"] = UPDATED.pop("embed.weight")
UPDATED["head.bias"] = np.zeros(9, np.float32)
del UPDATED["model.layers.1.mlp.weight"]


@pytest.fixture
def history(once, home, model) -> Repo:
    """The checkpoint in two versions, on main and in the tag v1."""

    def work() -> None:
        model.commit_files({PATH: checkpoints.safetensors(BASE)})
        model.git("tag", "v1")
        model.commit_files({PATH: checkpoints.safetensors(UPDATED)})

    once("diff history", home, model, work)
    return model


def diff(theta, repo: Repo, *args: str, code: int = 0) -> str:
    done = theta(repo, "diff", *args)
    assert done.returncode == code, done.stderr
    return done.stdout


def changes(theta, repo: Repo, *args: str) -> dict[str, dict[str, Any]]:
    (row,) = json.loads(diff(theta, repo, *args, "--json"))
    return {change["name"]: change for change in row["changes"]}


def test_groups_of_tensors_are_told_in_a_line_each(history, theta):
    first, header, *rows = diff(theta, history, "v1", "main").splitlines()
    assert first == (
        f"modified: {PATH}: 5 of 9 tensors changed, 1 cast, 1 renamed, 1 added, 1 removed"
    )
    assert header.split()[-4:] == ["RELATIVE", "COSINE", "MAX", "CHANGED"]
    assert len(rows) == 6
    words = [line.split() for line in rows]
    assert words[0][:4] == ["added", "head.bias", "F32", "9"]
    assert words[1][0] == "removed"
    assert words[2][:2] == ["sparse", "model.layers.2.mlp.weight"]
    assert words[3][:3] == ["cast", "model.layers.10.mlp.weight", "F32"]
    assert words[4][:5] == ["low-rank", "(4)", "model.layers.*.q_proj.weight", "(4)", "F32"]
    assert words[5][:4] == ["renamed", "embed.weight", "->", "wte.weight"]


def test_figures_are_those_of_numpy(history, theta):
    found = changes(theta, history, "v1..main", "--all")
    assert len(found) == 9
    for name in [*QUERIES, "model.layers.2.mlp.weight", "model.layers.10.mlp.weight"]:
        old, new = (arrays[name].astype(np.float64) for arrays in (BASE, UPDATED))
        row = found[name]
        expected = np.linalg.norm(new - old) / np.linalg.norm(old)
        assert row["relative"] == pytest.approx(expected, rel=1e-12)
        cosine = np.vdot(old, new) / np.linalg.norm(old) / np.linalg.norm(new)
        assert row["cosine"] == pytest.approx(cosine, rel=1e-12)
        assert row["max"] == np.abs(new - old).max()
        assert row["share"] == np.count_nonzero(old != new) / old.size
    assert found["wte.weight"]["before"] == "embed.weight"
    assert found["head.bias"]["relative"] is None


def test_a_group_is_measured_as_one_vector(history, theta):
    row = changes(theta, history, "v1", "main")["model.layers.*.q_proj.weight"]
    old, new = (
        np.concatenate([arrays[name].ravel() for name in QUERIES]).astype(np.float64)
        for arrays in (BASE, UPDATED)
    )
    assert row["relative"] == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old))
    assert (row["tensors"], row["size"]) == (4, 4 * old.size)


def test_rows_are_sorted_and_layers_are_in_their_order(history, theta):
    layers = [name for name in changes(theta, history, "v1", "main", "--all") if "q_proj" in name]
    assert layers == [f"model.layers.{layer}.q_proj.weight" for layer in (0, 1, 2, 10)]
    found = changes(theta, history, "v1", "main", "--all", "--sort", "change")
    relative = [row["relative"] or 0 for row in found.values()]
    assert relative == sorted(relative, reverse=True)
    sizes = [r["size"] for r in changes(theta, history, "v1", "main", "--sort", "size").values()]
    assert sizes == sorted(sizes, reverse=True)


def test_the_index_is_written_once_for_all_tensors(history, theta):
    index = history.path / ".git/theta/index.db"
    index.unlink()
    diff(theta, history, "v1", "main")
    # The schema, and what was verified: one more for each tensor took 0.5 ms (SQLite counts them
    # in its header).
    assert int.from_bytes(index.read_bytes()[24:28], "big") == 2


def test_stat_needs_no_object(history, theta):
    for file in (history.path / ".git/theta/objects").rglob("*"):
        if file.is_file():
            file.unlink()
    said = diff(theta, history, "v1", "main", "--stat")
    assert said == (
        f"modified: {PATH}: 5 of 9 tensors changed, 1 cast, 1 renamed, 1 added, 1 removed\n"
    )
    assert theta(history, "diff", "v1", "main").returncode != 0


def test_the_work_tree_and_the_index_are_compared_and_nothing_is_stored(history, theta):
    assert diff(theta, history, "--exit-code") == ""
    objects = set((history.path / ".git/theta/objects").rglob("*"))
    arrays = {**UPDATED, "model.layers.0.mlp.weight": BASE["model.layers.0.mlp.weight"] * 2}
    history.write(PATH, checkpoints.safetensors(arrays))
    for args in ((), ("HEAD",), ("--exit-code", "--", PATH)):
        found = theta(history, "diff", "--json", *args)
        assert found.returncode == (1 if "--exit-code" in args else 0)
        (row,) = json.loads(found.stdout)[0]["changes"]
        assert (row["name"], row["relative"]) == ("model.layers.0.mlp.weight", 1.0)
    assert diff(theta, history, "--staged") == ""
    assert diff(theta, history, "--", "other.*") == ""
    assert set((history.path / ".git/theta/objects").rglob("*")) == objects
    history.git("add", PATH)
    assert diff(theta, history) == ""
    assert "model.layers.0.mlp.weight" in diff(theta, history, "--staged")
    assert "7 of 9 tensors" not in diff(theta, history, "v1", "--stat")


def test_a_file_that_is_cut_otherwise_is_not_modified(history, theta):
    history.git("config", "theta.chunkSize", "10k")
    (history.path / PATH).touch()
    assert diff(theta, history, "--stat") == ""
    arrays = {**UPDATED, "head.bias": UPDATED["head.bias"] + np.float32(1)}
    history.write(PATH, checkpoints.safetensors(arrays))
    first, *rows = diff(theta, history).splitlines()
    assert first == f"modified: {PATH}: 1 of 9 tensors changed"
    assert [row.split()[1] for row in rows[1:]] == ["head.bias"]


def test_files_come_go_and_move(history, theta):
    history.git("mv", PATH, "renamed.safetensors")
    said = diff(theta, history, "--staged", "--stat")
    assert said == f"renamed: {PATH} -> renamed.safetensors: no tensor changed, of 9 tensors\n"
    (history.path / "renamed.safetensors").unlink()
    assert diff(theta, history) == "deleted: renamed.safetensors: 9 tensors\n"


def test_two_files_without_a_repository(tmp_path, theta):
    for name, arrays in (("a", BASE), ("b", UPDATED)):
        (tmp_path / f"{name}.safetensors").write_bytes(checkpoints.safetensors(arrays))
    folder = Repo(tmp_path)
    files = ("a.safetensors", "b.safetensors")
    found = changes(theta, folder, "--no-index", *files)
    assert found["model.layers.*.q_proj.weight"]["kind"] == "changed"
    assert diff(theta, folder, "--no-index", *files, "--exit-code", "--stat", code=1)
    assert diff(theta, folder, "--no-index", files[0], files[0], "--exit-code") == ""
    assert theta(folder, "diff", "--no-index", files[0]).returncode == 2


def test_mistakes_are_told(history, theta):
    done = theta(history, "diff", "v1", "main", "v1")
    assert done.returncode == 2
    assert "two commits can be compared, not 3" in done.stderr
    assert theta(history, "diff", "nothing", "main").returncode == 2
