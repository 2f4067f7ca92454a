"""A fine-tune finds its base in whatever branch, file or name it is."""

from __future__ import annotations

import json

from tests.support import checkpoints
from tests.support.repo import Repo

NAME = "layer.0.weight"
BASE = checkpoints.tensors(rows=600, layers=2)
BASE_FILE = checkpoints.safetensors(BASE)


def _stored(repo: Repo) -> int:
    folder = repo.path / ".git/theta/objects"
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _tuned(seed: int, prefix: str = "") -> bytes:
    moved = checkpoints.finetuned(BASE, scale=1e-2, seed=seed)
    return checkpoints.safetensors({prefix + name: array for name, array in moved.items()})


def _on_a_new_branch(repo: Repo, **files: bytes) -> None:
    repo.git("checkout", "-q", "--orphan", "fresh")
    repo.git("rm", "-rfq", "--cached", ".")
    repo.git("add", ".gitattributes")
    repo.commit_files(files)


def test_on_an_orphan_branch_the_base_is_found_and_kept(model, theta):
    model.commit_files({"m.safetensors": BASE_FILE})
    before = _stored(model)
    model.commit_files({"m.safetensors": _tuned(1)})
    alone = _stored(model) - before
    wrapped = _tuned(2, "model.")
    (model.path / "m.safetensors").unlink()
    _on_a_new_branch(model, **{"other.safetensors": wrapped})
    assert _stored(model) - before - alone < 1.05 * alone
    shown = theta(model, "show", "other.safetensors", f"model.{NAME}", "--json").stdout
    (base,) = json.loads(shown)["bases"]
    assert (base["name"], base["path"]) == (NAME, "m.safetensors")
    # The base outlives the branch that had it: the manifest names it.
    model.git("branch", "-D", "main")
    model.git("reflog", "expire", "--expire=all", "--all")
    assert theta(model, "gc", "--older-than", "0").returncode == 0
    (model.path / "other.safetensors").unlink()
    model.git("checkout", "-q", "--", "other.safetensors")
    assert model.read("other.safetensors") == wrapped


def test_a_clone_finds_what_it_has_checked_out(model, theta, tmp_path):
    model.commit_files({"m.safetensors": BASE_FILE})
    size = _stored(model)
    clone = Repo.clone(model.path, tmp_path / "clone")
    (clone.path / "m.safetensors").unlink()
    _on_a_new_branch(clone, **{"other.safetensors": _tuned(2, "model.")})
    assert _stored(clone) < 1.8 * size
    shown = theta(clone, "show", "other.safetensors", f"model.{NAME}").stdout
    assert f"encoded against {NAME} of m.safetensors in commit" in shown
