"""`git theta export-lora`, whose adapters PEFT itself loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save

from tests.support import adapters
from tests.support.repo import Repo

PATH = "model.safetensors"
pytestmark = pytest.mark.filterwarnings("ignore")  # of what PEFT and transformers deprecate
DENSE = f"{adapters.VALUE}.weight"


def state() -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in adapters.model().state_dict().items()}


@pytest.fixture
def history(once, home, model, theta_here, tmp_path) -> Repo:
    """A model; with an adapter (tag `lora`, whose folder is beside); and trained on (`dense`)."""

    def work() -> None:
        model.commit("Model", **{PATH: save(state())})
        adapters.write(model.path / "given", 3, adapters.lora(4, 6))
        done = theta_here(model, "add", PATH, "--update", "low-rank", "--data", "given")
        assert done.returncode == 0, done.stderr
        model.commit("Adapter")
        model.git("tag", "lora")
        arrays = load_file(model.path / PATH)
        random = np.random.default_rng(1)
        for name in (DENSE, "embeddings.word_embeddings.weight", "pooler.dense.bias"):
            noise = random.standard_normal(arrays[name].shape)
            arrays[name] = arrays[name] + (0.1 * noise).astype(np.float32)
        model.commit("Dense", **{PATH: save(arrays)})
        model.git("tag", "dense")

    once("export of adapters", home, model, work)
    return model


def export(theta_here, repo: Repo, *args: str) -> dict:
    done = theta_here(repo, "export-lora", "--json", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_factors_that_are_stored_come_back_word_for_word(history, theta_here, tmp_path):
    found = export(theta_here, history, "lora~", "lora", "-o", str(tmp_path / "out"))
    assert found["left_out"] == []
    assert found["residual"] < 1e-5  # of rounding to float32
    assert {row["name"]: (row["rank"], row["factors"]) for row in found["modules"]} == {
        adapters.QUERY: (4, "stored"),
        adapters.VALUE: (4, "stored"),
    }
    given = load_file(history.path / "given/adapter_model.safetensors")
    written = load_file(tmp_path / "out/adapter_model.safetensors")
    assert given.keys() == written.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(written[name], array, strict=True)
    config = adapters.read_config(tmp_path / "out")
    assert (config["r"], config["lora_alpha"]) == (4, 6)
    assert config["target_modules"] == ["query", "value"]
    expected = adapters.updates(history.path / "given")
    for name, update in adapters.updates(tmp_path / "out").items():
        torch.testing.assert_close(update, expected[name])


def test_other_changes_are_decomposed(history, theta_here, tmp_path):
    out = tmp_path / "out"
    options = ("--energy", "1", "--base-model", "tiny", "-o", str(out))
    found = export(theta_here, history, "lora", "dense", *options)
    assert [row["factors"] for row in found["modules"]] == ["SVD", "SVD"]
    (left_out,) = found["left_out"]
    assert left_out["tensor"] == "pooler.dense.bias"
    before = load_change(history, "lora")
    after = load_change(history, "dense")
    change = {name: after[name] - before[name] for name in after}
    norms = {name: float(np.linalg.norm(array)) for name, array in change.items()}
    assert left_out["norm"] == pytest.approx(norms["pooler.dense.bias"], rel=1e-6)
    total = sum(norm**2 for norm in norms.values())
    expected = norms["pooler.dense.bias"] / total**0.5
    assert found["residual"] == pytest.approx(expected, rel=1e-4)
    # PEFT computes the same change, embedding included.
    updates = adapters.updates(out)
    assert len(updates) == 2
    for module, update in updates.items():
        np.testing.assert_allclose(update.numpy(), change[f"{module}.weight"], atol=1e-5)
    assert adapters.read_config(out)["base_model_name_or_path"] == "tiny"


def load_change(repo: Repo, rev: str) -> dict[str, np.ndarray]:
    from safetensors.numpy import load

    return load(repo.process("cat-file", "--filters", f"{rev}:{PATH}").stdout)


def test_a_rank_leaves_what_the_decomposition_leaves(history, theta_here, tmp_path):
    out = str(tmp_path / "out")
    found = export(theta_here, history, "lora", "dense", "--rank", "3", "-o", out, "--", PATH)
    rows = {row["name"]: row for row in found["modules"]}
    change = load_change(history, "dense")[DENSE] - load_change(history, "lora")[DENSE]
    values = np.linalg.svd(change.astype(np.float64), compute_uv=False)
    expected = np.linalg.norm(values[3:]) / np.linalg.norm(values)
    assert rows[adapters.VALUE]["residual"] == pytest.approx(expected, rel=1e-4)
    assert {row["rank"] for row in rows.values()} == {3}
    # Two updates in a row: the stored factors of rank 4 are too many, those of both are no factors.
    both = export(theta_here, history, "lora~", "dense", "--rank", "20", "-o", out, "--force")
    assert {row["name"]: row["factors"] for row in both["modules"]} == {
        adapters.QUERY: "stored",
        adapters.VALUE: "SVD",
        "embeddings.word_embeddings": "SVD",
    }
    assert adapters.load(Path(out))


def test_nothing_is_replaced_or_half_written(history, theta_here, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("mine")
    for args, words in (
        (("lora~", "lora"), "--force replaces it"),
        (("lora", "lora"), "no matrix of a module changed"),
        (("nowhere", "lora"), "no such revision"),
        (("lora~", "lora", "--rank", "2", "--energy", "0.5"), "cannot be combined"),
    ):
        target = folder if args == ("lora~", "lora") else tmp_path / "new"
        done = theta_here(history, "export-lora", *args, "-o", str(target))
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
    assert (folder / "adapter_config.json").read_text() == "mine"
    assert [file.name for file in folder.iterdir()] == ["adapter_config.json"]
    assert not (tmp_path / "new").exists()
    shown = theta_here(history, "export-lora", "lora~", "lora", "-o", str(folder), "--force")
    assert shown.stdout.splitlines()[1].split()[1:3] == ["4", "stored"]
    assert adapters.load(folder)
