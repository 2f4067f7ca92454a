"""A reader written from docs/spec.md alone rebuilds what git-theta stored, in every encoding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.support import spec_reader
from tests.support.checkpoints import finetuned, safetensors, tensors
from tests.support.repo import Repo


def objects(repo: Repo) -> Path:
    return repo.path / ".git" / "theta" / "objects"


def rebuilt(repo: Repo, revision: str) -> dict[str, bytes]:
    return {
        path: spec_reader.rebuild(manifest, objects(repo))
        for path, manifest in spec_reader.checkpoints(repo.path, revision)
    }


def encodings(repo: Repo) -> set[int]:
    """The numbers of the encodings of all frames in the store."""
    found = set()
    for file in objects(repo).rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        while data:
            length = int.from_bytes(data[8:16], "little")
            found.add(spec_reader.parse_frame(data[:length]).encoding)
            data = data[length:]
    return found


def low_rank(array: np.ndarray, rank: int = 2) -> np.ndarray:
    random = np.random.default_rng(5)
    left = random.standard_normal((array.shape[0], rank)) * 1e-2
    return (array + left @ random.standard_normal((rank, array.shape[1]))).astype(np.float32)


def scaled(array: np.ndarray) -> np.ndarray:
    scale = 1 + 0.1 * np.random.default_rng(6).standard_normal(array.shape[1])
    return (array * scale.astype(np.float32)).astype(np.float32)


def one_changed(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    changed[7, 9] += 1
    return changed


def update_each() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Six matrices, and the same ones changed in six ways, one for each encoding."""
    random = np.random.default_rng(4)
    names = ("dense", "sparse", "low-rank", "scaled", "new", "cast")
    old = {name: random.standard_normal((256, 320)).astype(np.float32) for name in names}
    new = {
        "dense": finetuned({"dense": old["dense"]}, scale=1e-5)["dense"],
        "sparse": one_changed(old["sparse"]),
        "low-rank": low_rank(old["low-rank"]),
        "scaled": scaled(old["scaled"]),
        "new": random.standard_normal((256, 320)).astype(np.float32),
        "cast": old["cast"].astype(np.float16),
    }
    return old, new


def test_every_encoding_is_read_from_the_specification(model: Repo) -> None:
    before, after = map(safetensors, update_each())
    model.commit_files({"model.safetensors": before})
    model.commit_files({"model.safetensors": after})

    assert rebuilt(model, "HEAD~1") == {"model.safetensors": before}
    assert rebuilt(model, "HEAD") == {"model.safetensors": after}
    assert encodings(model) == set(spec_reader.DECODERS)


def test_chains_packs_shared_chunks_and_odd_files_are_read(model: Repo) -> None:
    weights, files = tensors(rows=64, layers=12), {}
    for step in range(3):
        weights = finetuned(weights, seed=step)
        files = {
            "model.safetensors": safetensors(weights, step=str(step)),
            "copy of größe.safetensors": safetensors(
                {**weights, "a.first": np.array(step, np.float32)}
            ),
            "not really.safetensors": b"opaque" * 1000,
        }
        model.commit_files(files)
    assert rebuilt(model, "HEAD") == files
    chains = [
        len(chunk) - 2
        for _, manifest in spec_reader.checkpoints(model.path, "HEAD")
        for line in map(json.loads, manifest.splitlines())
        for chunk in line.get("chunks", ())
    ]
    assert max(chains) > 2


def test_the_command_rebuilds_a_revision(model: Repo, tmp_path: Path) -> None:
    content = safetensors()
    model.commit_files({"models/a.safetensors": content})
    spec_reader.main(model.path, "HEAD", tmp_path / "out")
    assert (tmp_path / "out" / "models" / "a.safetensors").read_bytes() == content
