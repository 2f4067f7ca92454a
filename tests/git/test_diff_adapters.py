"""Adapters are compared by what they add to a model, not by their factors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.support import checkpoints
from tests.support.repo import Repo

FOLDER = "adapter"
PATH = f"{FOLDER}/adapter_model.safetensors"
CONFIG = f"{FOLDER}/adapter_config.json"
STEM = "base_model.model.layer.{}.query"
Pairs = dict[int, tuple[np.ndarray, np.ndarray]]


def pairs(rank: int, seed: int) -> Pairs:
    random = np.random.default_rng(seed)
    return {
        layer: tuple(random.standard_normal(s).astype(np.float32) for s in ((rank, 24), (16, rank)))
        for layer in (0, 1)
    }


def files(found: Pairs, alpha: float, rank: int) -> dict[str, bytes]:
    tensors = {
        f"{STEM.format(layer)}.lora_{role}.weight": array
        for layer, pair in found.items()
        for role, array in zip("AB", pair, strict=True)
    }
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha}
    return {PATH: checkpoints.safetensors(tensors), CONFIG: json.dumps(config).encode()}


def product(pair: tuple[np.ndarray, np.ndarray], scale: float) -> np.ndarray:
    return scale * pair[1].astype(np.float64) @ pair[0].astype(np.float64)


OLD, NEW = pairs(4, 1), pairs(6, 2)
# Layer 1 is the same update, by other factors.
NEW[1] = (
    np.vstack([OLD[1][0] * 2, np.zeros((2, 24), np.float32)]),
    np.hstack([OLD[1][1] * np.float32(0.75), np.zeros((16, 2), np.float32)]),
)
ROW = f"{STEM.format(0)}.lora"


@pytest.fixture
def history(once, home, model) -> Repo:
    def work() -> None:
        model.commit_files(files(OLD, 8, 4))
        model.commit_files(files(NEW, 8, 6))

    once("diff of adapters", home, model, work)
    return model


def check(document: dict[str, object]) -> None:
    rows = {row["name"]: row for row in document["changes"]}
    assert [*rows] == [ROW, f"{STEM.format(1)}.lora"]
    old, new = product(OLD[0], 2.0), product(NEW[0], 8 / 6)
    found = rows[ROW]
    assert (found["update"], found["shapes"]) == ("LoRA (4 -> 6)", [[16, 24]])
    expected = np.linalg.norm(new - old) / np.linalg.norm(old)
    assert found["relative"] == pytest.approx(expected, rel=1e-12)
    cosine = np.vdot(old, new) / np.linalg.norm(old) / np.linalg.norm(new)
    assert found["cosine"] == pytest.approx(cosine, rel=1e-12)
    assert found["share"] is found["max"] is None
    assert rows[f"{STEM.format(1)}.lora"]["relative"] < 1e-7


def test_two_revisions(history, theta_here):
    done = theta_here(history, "diff", "HEAD~1", "HEAD", "--all", "--json", "--", PATH)
    assert done.returncode == 0, done.stderr
    (document,) = json.loads(done.stdout)
    check(document)
    first, _, row = theta_here(history, "diff", "HEAD~1", "HEAD").stdout.splitlines()
    assert first == f"modified: {PATH}: 4 of 4 tensors changed"
    assert row.split()[:5] == ["LoRA", "(4", "->", "6)", "base_model.model.layer.*.query.lora"]


def test_the_work_tree_has_a_configuration_of_its_own(history, theta_here):
    for path, content in files(OLD, 4, 4).items():
        history.write(path, content)
    (document,) = json.loads(theta_here(history, "diff", "HEAD~1", "--json").stdout or "[{}]") or [
        {}
    ]
    # Equal factors at half the scale: the file of tensors did not change.
    assert document == {}
    history.write(PATH, files(pairs(4, 9), 4, 4)[PATH])
    (document,) = json.loads(theta_here(history, "diff", "HEAD~1", "--all", "--json").stdout)
    old, new = product(OLD[0], 2.0), product(pairs(4, 9)[0], 1.0)
    expected = np.linalg.norm(new - old) / np.linalg.norm(old)
    assert document["changes"][0]["relative"] == pytest.approx(expected, rel=1e-12)


def test_two_folders(tmp_path, theta_here):
    for name, content in (("one", files(OLD, 8, 4)), ("two", files(NEW, 8, 6))):
        folder = tmp_path / name
        folder.mkdir()
        for path, data in content.items():
            (folder / Path(path).name).write_bytes(data)
    done = theta_here(Repo(tmp_path), "diff", "--no-index", "one", "two", "--all", "--json")
    assert done.returncode == 0, done.stderr
    (document,) = json.loads(done.stdout)
    check(document)
    # Without the configuration nobody knows the scales.
    (tmp_path / "two/adapter_config.json").write_text('{"peft_type": "LORA", "use_dora": true}')
    done = theta_here(Repo(tmp_path), "diff", "--no-index", "one", "two", "--all", "--json")
    names = [row["name"] for row in json.loads(done.stdout)[0]["changes"]]
    assert f"{STEM.format(0)}.lora_A.weight" in names
    shutil.rmtree(tmp_path / "two")
    assert theta_here(Repo(tmp_path), "diff", "--no-index", "one", "two").returncode == 2


def test_git_diff_compares_products_where_the_configuration_is_known(history, theta):
    """Git tells the driver the blobs: the configuration is the one beside them in every commit."""
    ours = theta(history, "diff", "HEAD~1", "HEAD").stdout
    assert "LoRA (4 -> 6)" in ours
    for args in (("HEAD~1", "HEAD"), ("HEAD~1",), ("--cached", "HEAD~1")):
        assert history.git("diff", *args, "--", PATH).splitlines() == ours.splitlines()
    # The same factors at another scale: no commit says which of the two is meant.
    history.write(CONFIG, files(NEW, 16, 6)[CONFIG])
    history.git("commit", "-qam", "Another scale")
    shown = history.git("diff", "HEAD~2", "HEAD", "--", PATH)
    assert "LoRA (" not in shown
    assert "lora_A" in shown
    assert "LoRA (4 -> 6)" in theta(history, "diff", "HEAD~2", "HEAD").stdout
