"""``git theta add --update``: adapters and sparse changes stored as what they are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save, save_file

from git_theta import manifest
from tests.support import checkpoints
from tests.support.repo import Repo

RANK, ROWS, COLUMNS = 4, 96, 64
NAMES = ("encoder.layer.0.query", "encoder.layer.1.query")


def _base(kind=np.float32) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    made = {
        f"{name}.weight": (0.05 * random.standard_normal((ROWS, COLUMNS))).astype(kind)
        for name in NAMES
    }
    return made | {"encoder.norm.bias": random.standard_normal(COLUMNS).astype(kind)}


def _adapter(folder: Path, names=NAMES, rank=RANK, rows=ROWS) -> Path:
    """A LoRA adapter as PEFT saves it (peft 0.11 to 0.21)."""
    random = np.random.default_rng(1)
    folder.mkdir()
    factors = {}
    for name in names:
        prefix = f"base_model.model.{name}"
        down = 0.02 * random.standard_normal((rank, COLUMNS))
        up = 0.02 * random.standard_normal((rows, rank))
        factors[f"{prefix}.lora_A.weight"] = down.astype(np.float32)
        factors[f"{prefix}.lora_B.weight"] = up.astype(np.float32)
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["query"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def _merged(base: dict[str, np.ndarray], adapter: Path) -> dict[str, np.ndarray]:
    factors = load((adapter / "adapter_model.safetensors").read_bytes())
    result = dict(base)
    for name in NAMES:
        down, up = (factors[f"base_model.model.{name}.lora_{x}.weight"] for x in "AB")
        result[f"{name}.weight"] = base[f"{name}.weight"] + (up @ down) * np.float32(2)
    return result


def _rows(theta, repo: Repo, rev: str) -> dict[str, dict[str, object]]:
    done = theta(repo, "show", f"{rev}:m.safetensors", "--json")
    return {row["name"]: row for row in json.loads(done.stdout)["tensors"]}


@pytest.fixture
def based(model: Repo) -> Repo:
    model.commit_files({"m.safetensors": save(_base())}, "base")
    return model


def _add(theta, repo: Repo, data: Path, kind: str = "low-rank", *more: str):
    return theta(repo, "add", "m.safetensors", "--update", kind, "--data", str(data), *more)


def test_an_adapter_is_applied_to_the_base(based, theta, tmp_path):
    adapter = _adapter(tmp_path / "adapter")
    done = _add(theta, based, adapter)
    assert done.returncode == 0, done.stderr
    assert "2 tensors updated" in done.stdout
    now, expected = load(based.read("m.safetensors")), _merged(_base(), adapter)
    for name, array in expected.items():
        np.testing.assert_allclose(now[name], array, rtol=0, atol=np.spacing(np.float32(0.25)))
    assert based.git("diff", "--name-only") == ""
    assert based.git("diff", "--cached", "--name-only") == "m.safetensors"
    based.git("commit", "-q", "-m", "adapter")
    rows = _rows(theta, based, "HEAD")
    factors = RANK * (ROWS + COLUMNS) * 4
    for name in NAMES:
        assert rows[f"{name}.weight"]["encodings"] == ["low-rank"]
        assert rows[f"{name}.weight"]["stored"] < 1.3 * factors
    content = based.read("m.safetensors")
    based.git("checkout", "-q", "HEAD~1")
    assert based.read("m.safetensors") == save(_base())
    based.git("checkout", "-q", "main")
    assert based.read("m.safetensors") == content


def test_weights_that_are_merged_already_are_kept_exactly(based, theta, tmp_path):
    adapter = _adapter(tmp_path / "adapter")
    content = save(_merged(_base(), adapter))
    based.write("m.safetensors", content)
    done = _add(theta, based, adapter)
    assert done.returncode == 0, done.stderr
    assert based.read("m.safetensors") == content
    based.git("commit", "-q", "-m", "adapter")
    assert _rows(theta, based, "HEAD")[f"{NAMES[0]}.weight"]["encodings"] == ["low-rank"]
    (based.path / "m.safetensors").unlink()
    based.git("checkout", "-q", ".")
    assert based.read("m.safetensors") == content


def test_a_sparse_update(based, theta, tmp_path):
    name = f"{NAMES[0]}.weight"
    change = {
        f"{name}.indices": np.array([3, 700, 6000], np.int64),
        f"{name}.values": np.array([1.5, -2.0, 0.0], np.float32),
    }
    save_file(change, tmp_path / "change.safetensors")
    done = _add(theta, based, tmp_path / "change.safetensors", "sparse")
    assert done.returncode == 0, done.stderr
    expected = _base()
    expected[name].reshape(-1)[[3, 700, 6000]] = [1.5, -2.0, 0.0]
    assert based.read("m.safetensors") == save(expected)
    assert _rows(theta, based, "")[name]["encodings"] == ["sparse"]


def test_an_adapter_for_a_torch_checkpoint(model, theta, tmp_path):
    import torch

    model.commit_files({"m.pt": checkpoints.torch_zip(_base())})
    adapter = _adapter(tmp_path / "adapter")
    done = theta(model, "add", "m.pt", "--update", "low-rank", "--data", str(adapter))
    assert done.returncode == 0, done.stderr
    now = torch.load(model.path / "m.pt", weights_only=True)
    name = f"{NAMES[0]}.weight"
    expected = _merged(_base(), adapter)[name]
    np.testing.assert_allclose(now[name].numpy(), expected, rtol=0, atol=2e-8)


def _nothing_happened(repo: Repo) -> bool:
    return repo.git("status", "--porcelain") == "" and repo.read("m.safetensors") == save(_base())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": ("decoder.layer.0.query",)}, "no tensor for"),
        ({"rows": ROWS + 1}, "another model"),
        ({"rank": RANK + 1}, "rank"),
    ],
)
def test_an_adapter_that_does_not_fit_stages_nothing(based, theta, tmp_path, change, words):
    done = _add(theta, based, _adapter(tmp_path / "adapter", **change))
    assert done.returncode != 0
    assert words in done.stderr
    assert _nothing_happened(based)


def test_a_nan_in_the_factors_stages_nothing(based, theta, tmp_path):
    adapter = _adapter(tmp_path / "adapter")
    factors = load((adapter / "adapter_model.safetensors").read_bytes())
    next(iter(factors.values()))[0, 0] = np.nan
    save_file(factors, adapter / "adapter_model.safetensors")
    done = _add(theta, based, adapter)
    assert done.returncode != 0
    assert "NaN" in done.stderr
    assert _nothing_happened(based)


def test_a_base_that_was_changed_since_stages_nothing(based, theta, tmp_path):
    changed = _base()
    changed["encoder.norm.bias"][0] += 1
    based.write("m.safetensors", save(changed))
    done = _add(theta, based, _adapter(tmp_path / "adapter"))
    assert done.returncode == 2
    assert "encoder.norm.bias" in done.stderr
    assert based.read("m.safetensors") == save(changed)
    assert based.git("diff", "--cached", "--name-only") == ""
    other = _base()
    other[f"{NAMES[0]}.weight"] = other[f"{NAMES[0]}.weight"] + np.float32(0.01)
    based.write("m.safetensors", save(other))
    done = _add(theta, based, tmp_path / "adapter")
    assert done.returncode == 2
    assert f"{NAMES[0]}.weight" in done.stderr


def test_names_can_be_mapped_and_kinds_must_agree(based, theta, tmp_path):
    adapter = _adapter(tmp_path / "adapter", ("other.0.query",))
    assert _add(theta, based, adapter, "low-rank", "--map", "nonsense").returncode == 2
    done = _add(theta, based, adapter, "ia3")
    assert done.returncode == 2
    done = _add(theta, based, adapter, "low-rank", "--map", f"other.0.query={NAMES[0]}")
    assert done.returncode == 0, done.stderr
    assert "1 tensor updated" in done.stdout


def test_a_path_that_is_not_a_checkpoint(based, theta, tmp_path):
    done = theta(
        based, "add", "absent.pt", "--update", "ia3", "--data", str(_adapter(tmp_path / "a"))
    )
    assert done.returncode == 22
    text = based.git("show", ":m.safetensors").encode() + b"\n"
    based.write("m.safetensors", text)
    assert manifest.is_manifest(text)
    done = _add(theta, based, tmp_path / "a")
    assert done.returncode == 2
    assert "git theta checkout" in done.stderr
