"""A reader written from docs/spec.md alone rebuilds what git-theta stored, in every encoding."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

import standalone_reader
from tests.support.checkpoints import finetuned, safetensors, tensors
from tests.support.formats import gguf_file, gguf_info
from tests.support.repo import Repo


def objects(repo: Repo) -> Path:
    return repo.path / ".git" / "theta" / "objects"


def rebuilt(repo: Repo, revision: str) -> dict[str, bytes]:
    return {
        path: standalone_reader.rebuild(manifest, objects(repo))
        for path, manifest in manifests(repo, revision)
    }


def manifests(repo: Repo, revision: str) -> list[tuple[str, bytes]]:
    """Path and manifest of every checkpoint of a revision."""
    paths = repo.git("ls-tree", "-r", "-z", "--name-only", revision).split("\0")[:-1]
    found = [
        (path, repo.process("cat-file", "blob", f"{revision}:{path}").stdout) for path in paths
    ]
    return [(path, text) for path, text in found if text.startswith(standalone_reader.PREFIX)]


def frames(repo: Repo) -> Iterator[standalone_reader.Frame]:
    """All frames in the store."""
    for file in objects(repo).rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        while data:
            length = int.from_bytes(data[8:16], "little")
            yield standalone_reader.parse_frame(data[:length])
            data = data[length:]


def encodings(repo: Repo) -> set[int]:
    """The numbers of the encodings of all frames in the store."""
    return {frame.encoding for frame in frames(repo)}


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
    """Seven matrices, and the same ones changed in seven ways, one for each encoding."""
    random = np.random.default_rng(4)
    names = ("dense", "sparse", "low-rank", "scaled", "new", "cast", "pruned")
    old = {name: random.standard_normal((256, 320)).astype(np.float32) for name in names}
    new = {
        "dense": finetuned({"dense": old["dense"]}, scale=1e-5)["dense"],
        "sparse": one_changed(old["sparse"]),
        "low-rank": low_rank(old["low-rank"]),
        "scaled": scaled(old["scaled"]),
        "new": random.standard_normal((256, 320)).astype(np.float32),
        "cast": old["cast"].astype(np.float16),
        "pruned": np.where(random.random((256, 320)) < 0.4, -0.0, old["pruned"]).astype(np.float32),
    }
    return old, new


def deflated(array: np.ndarray) -> bytes:
    """A file of ``numpy.savez_compressed``, under whatever name: its content says what it is."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, w=array)
    return buffer.getvalue()


def quantised(array: np.ndarray) -> bytes:
    """A GGUF file with one tensor in Q8_0."""
    kind = gguf.GGMLQuantizationType.Q8_0
    info = gguf_info("w", list(reversed(array.shape)), int(kind), 0)
    return gguf_file([], [info], gguf.quants.quantize(array, kind).tobytes())


def test_every_encoding_is_read_from_the_specification(model: Repo) -> None:
    before, after = update_each()
    first = {"model.safetensors": safetensors(before), "deflated.pt": deflated(before["dense"])}
    second = {
        "model.safetensors": safetensors(after),
        "deflated.pt": deflated(after["dense"]),
        "quantised.pt": quantised(after["dense"]),
    }
    model.commit_files(first)
    model.commit_files(second)

    assert rebuilt(model, "HEAD~1") == first
    assert rebuilt(model, "HEAD") == second
    assert encodings(model) == set(standalone_reader.DECODERS)


def test_a_transposed_base_is_read(model: Repo) -> None:
    matrix = np.random.default_rng(9).standard_normal((160, 128)).astype(np.float32)
    files = {
        "one.safetensors": safetensors({"w": matrix}),
        "other.safetensors": safetensors({"kernel": np.ascontiguousarray(matrix.T)}),
    }
    for path, data in files.items():
        model.commit_files({path: data})
    assert rebuilt(model, "HEAD") == files
    assert any(frame.transposition for frame in frames(model))


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
        for _, manifest in manifests(model, "HEAD")
        for line in map(json.loads, manifest.splitlines())
        for chunk in line.get("chunks", ())
    ]
    assert max(chains) > 2


ALONE = """
import runpy, sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None  # importing it fails
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(*arguments: str | Path, without: str = "git_theta") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", ALONE, without, standalone_reader.__file__, *arguments]
    return subprocess.run(words, capture_output=True, text=True)


def test_a_clone_without_git_theta_is_read_with_git_lfs_alone(
    model: Repo, remote: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = [safetensors(), safetensors(finetuned())]
    for content in contents:
        model.commit_files({"m.safetensors": content})
    model.git("remote", "add", "origin", str(remote.path))
    model.git("push", "-q", "origin", "main")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    clone = Repo.clone(remote.path, tmp_path / "clone")
    assert standalone_reader.PREFIX in clone.read("m.safetensors")
    clone.git("fetch", "-q", "origin", "+refs/theta/objects/*:refs/theta/objects/*")
    refs = clone.git("for-each-ref", "--format=%(refname)", "refs/theta/objects").split()
    clone.git("lfs", "fetch", "origin", *refs)

    given = (clone.path / "m.safetensors", clone.path / ".git/lfs/objects")
    for number, without in enumerate(("git_theta", "git_theta,blake3")):
        target = tmp_path / f"{number}.safetensors"
        done = alone(*given, target, without=without)
        assert done.returncode == 0, done.stderr
        assert ("blake3" in done.stderr) == ("blake3" in without)
        assert target.read_bytes() == contents[1]


def test_what_is_missing_or_damaged_is_named_and_nothing_is_written(
    model: Repo, tmp_path: Path
) -> None:
    model.commit_files({"m.safetensors": safetensors()})
    ((_, text),) = manifests(model, "HEAD")
    (tmp_path / "manifest").write_bytes(text)
    target = tmp_path / "out"
    done = alone(tmp_path / "manifest", tmp_path, target)
    assert "is not below" in done.stderr
    for file in objects(model).rglob("*"):
        if file.is_file():
            file.chmod(0o644)
            file.write_bytes(bytes(file.stat().st_size))
    done = alone(tmp_path / "manifest", objects(model), target)
    assert "is not what its name says" in done.stderr
    (tmp_path / "manifest").write_bytes(text.replace(b'{"git-theta":1', b'{"git-theta":2'))
    done = alone(tmp_path / "manifest", objects(model), target)
    assert "version 2" in done.stderr
    assert done.returncode == 1
    assert list(tmp_path.glob("*out*")) == []
