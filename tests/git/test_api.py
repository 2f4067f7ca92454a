"""Any version of a checkpoint from Python, in real repositories."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import git_theta
from git_theta import errors
from git_theta.api import files
from git_theta.checkpoint import chunk_decoder
from tests.support import checkpoints
from tests.support.repo import Repo

PATH = "model.safetensors"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def committed(model: Repo) -> dict[str, np.ndarray]:
    """A version at tag v1, a fine-tune at HEAD; the arrays of v1."""
    first = checkpoints.tensors()
    model.commit("One", **{PATH: checkpoints.safetensors(first, format="np", step="1")})
    model.git("tag", "v1")
    model.commit("Two", **{PATH: checkpoints.safetensors(checkpoints.finetuned(first))})
    return first


def test_a_version_is_a_mapping_with_the_methods_of_safe_open(model: Repo, committed) -> None:
    with git_theta.open(PATH, rev="v1", repo=model.path) as checkpoint:
        assert list(checkpoint.keys()) == list(checkpoint) == sorted(committed)
        assert len(checkpoint) == len(committed)
        assert "layer.0.bias" in checkpoint
        assert "other" not in checkpoint
        for name, array in committed.items():
            np.testing.assert_array_equal(checkpoint.get_tensor(name), array, strict=True)
            np.testing.assert_array_equal(checkpoint[name], array, strict=True)
        assert checkpoint.metadata() == {"format": "np", "step": "1"}
        assert checkpoint.format == "safetensors"
        assert "v1:model.safetensors" in repr(checkpoint)
    with git_theta.open(PATH, repo=model.path) as checkpoint:
        assert checkpoint.metadata() is None
        expected = checkpoints.finetuned(committed)["layer.1.weight"]
        np.testing.assert_array_equal(checkpoint["layer.1.weight"], expected)


def test_metadata_of_a_file_that_the_library_does_not_load(model: Repo) -> None:
    """Bytes behind the tensors are no part of it."""
    data = checkpoints.safetensors(checkpoints.tensors(), step="1") + b"behind"
    model.commit("One", **{PATH: data})
    with git_theta.open(PATH, repo=model.path) as checkpoint:
        assert checkpoint.metadata() == {"step": "1"}


def test_a_tensor_may_be_written_to_and_outlives_the_checkpoint(model: Repo, committed) -> None:
    with git_theta.open(PATH, rev="v1", repo=model.path) as checkpoint:
        array = checkpoint["layer.0.weight"]
        array[:] = 0
        np.testing.assert_array_equal(checkpoint["layer.0.weight"], committed["layer.0.weight"])
    assert not array.any()
    with pytest.raises(errors.UsageError, match=r"v1:model.safetensors: .*closed"):
        checkpoint["layer.0.weight"]


def test_the_index_and_the_work_tree_are_versions_too(model: Repo, committed) -> None:
    other, third = checkpoints.tensors(seed=8), checkpoints.tensors(seed=9)
    model.write(PATH, checkpoints.safetensors(other))
    model.git("add", PATH)
    model.write(PATH, checkpoints.safetensors(third, step="9"))
    for rev, expected in (("", other), (None, third)):
        with git_theta.open(PATH, rev=rev, repo=model.path) as checkpoint:
            for name, array in expected.items():
                np.testing.assert_array_equal(checkpoint[name], array, strict=True)
                part = checkpoint.get_slice(name)[3:5]
                np.testing.assert_array_equal(part, array[3:5], strict=True)
            assert checkpoint.metadata() == (None if rev == "" else {"step": "9"})


def test_a_manifest_in_the_work_tree_stands_for_its_file(model: Repo, committed) -> None:
    model.write(PATH, model.git("cat-file", "-p", f"v1:{PATH}").encode() + b"\n")
    with git_theta.open(PATH, rev=None, repo=model.path) as checkpoint:
        np.testing.assert_array_equal(checkpoint["layer.0.bias"], committed["layer.0.bias"])


def test_paths_are_relative_to_the_folder(model: Repo) -> None:
    arrays = checkpoints.tensors(seed=3)
    model.commit_files({f"runs/a/{PATH}": checkpoints.safetensors(arrays)})
    for folder, path in (
        ("runs/a", PATH),
        ("runs", f"a/{PATH}"),
        (".", model.path / "runs/a" / PATH),
    ):
        for rev in ("HEAD", None):
            with git_theta.open(path, rev=rev, repo=model.path / folder) as checkpoint:
                np.testing.assert_array_equal(checkpoint["layer.0.bias"], arrays["layer.0.bias"])


MISTAKES = [
    (PATH, "nowhere", errors.UsageError, "no such revision"),
    (PATH, "v1..HEAD", errors.UsageError, "range"),
    (PATH, "--all", errors.UsageError, "no such revision"),
    ("absent.safetensors", "HEAD", errors.ManifestError, "no such file"),
    ("absent.safetensors", None, errors.UsageError, "cannot be read"),
    (".gitattributes", "HEAD", errors.ManifestError, "not stored by git-theta"),
    (".gitattributes", None, errors.FormatError, "no format recognises it"),
    ("../elsewhere", "HEAD", errors.UsageError, "outside the repository"),
]


def test_what_is_not_there_is_an_error_that_says_so(model: Repo, committed) -> None:
    for path, rev, kind, message in MISTAKES:
        with pytest.raises(kind, match=message):
            git_theta.open(path, rev=rev, repo=model.path)


def test_names_frameworks_and_devices_that_are_not_there(model: Repo, committed, tmp_path) -> None:
    with git_theta.open(PATH, repo=model.path) as checkpoint:
        with pytest.raises(KeyError, match=r"is it layer.0.bias"):
            checkpoint.get_tensor("layer.0.bia")
        with pytest.raises(KeyError, match="zzz"):
            checkpoint.get_slice("zzz")
        assert checkpoint.get("zzz") is None
    with pytest.raises(errors.UsageError, match="np"):
        git_theta.open(PATH, repo=model.path, framework="jax")  # type: ignore[call-overload]
    with pytest.raises(errors.UsageError, match="numpy computes on the cpu"):
        git_theta.open(PATH, repo=model.path, device="cuda")
    with pytest.raises(errors.NotARepositoryError):
        git_theta.open(PATH, repo=tmp_path)


def test_numpy_needs_no_torch(model: Repo, committed) -> None:
    program = (
        f"import sys, git_theta\nwith git_theta.open({PATH!r}, rev='v1') as c:\n"
        " print((c['layer.0.bias'] == c.get_slice('layer.0.bias')[:]).all())\n"
        " print(sorted(c.metadata()))\n"
        "git_theta.log(); print('torch' in sys.modules, 'git' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=model.path, capture_output=True, text=True
    )
    assert done.stdout == "True\n['format', 'step']\nFalse False\n", done.stderr


# --- slices, and what is read for them ---------------------------------------------------------


@pytest.fixture
def rows(model: Repo) -> np.ndarray:
    """A matrix of 64 rows in 16 chunks, and a vector."""
    matrix = np.random.default_rng(5).standard_normal((64, 1024)).astype(np.float32)
    arrays = {"matrix": matrix, "vector": np.arange(5, dtype=np.int64)}
    model.git("config", "theta.chunkSize", "16k")
    model.commit("Rows", **{PATH: checkpoints.safetensors(arrays)})
    return matrix


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes of all chunks that are decoded."""
    seen: list[str] = []
    real = chunk_decoder.decode

    def decode(frames, chunk, known):
        seen.append(chunk.hash)
        return real(frames, chunk, known)

    monkeypatch.setattr(files.chunk_decoder, "decode", decode)
    return seen


SLICES = [
    (np.s_[:], 16),
    (np.s_[...], 16),
    (np.s_[0], 1),
    (np.s_[-1], 1),
    (np.int64(7), 1),
    (np.s_[4:8], 1),
    (np.s_[3:9], 3),
    (np.s_[60:], 1),
    (np.s_[60:99:3, 5:7], 1),
    (np.s_[::-1], 16),
    (np.s_[9:2:-2, ::2], 3),
    (np.s_[5:5], 0),
    (np.s_[5, 10], 1),
    (np.s_[:, 3], 16),
    (np.s_[None, 2:4], 16),
    (np.s_[[1, 2]], 16),
    ((), 16),
]


def test_a_slice_decodes_the_chunks_of_its_rows_only(
    model: Repo, rows: np.ndarray, decoded: list[str]
) -> None:
    with git_theta.open(PATH, repo=model.path) as checkpoint:
        part = checkpoint.get_slice("matrix")
        assert (part.get_shape(), part.get_dtype()) == ([64, 1024], "F32")
        assert decoded == []
        for index, chunks in SLICES:
            np.testing.assert_array_equal(part[index], rows[index])
            assert len(decoded) == len(set(decoded)) == chunks, index
            decoded.clear()
        assert part[4:8, :2].base is None  # it does not hold on to the rest
        for beyond in (64, -65, (0, 1024)):
            with pytest.raises(IndexError):
                part[beyond]


def test_several_threads_may_read_at_once(model: Repo, rows: np.ndarray) -> None:
    results: list[bool] = []
    with git_theta.open(PATH, repo=model.path) as checkpoint:

        def read() -> None:
            results.extend(bool((checkpoint["matrix"] == rows).all()) for _ in range(5))

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [True] * 20


# --- objects that are not here -------------------------------------------------------------------


@pytest.fixture
def clone(model: Repo, server, tmp_path: Path) -> Repo:
    """A clone without objects, of two tensors whose objects are apart."""
    random = np.random.default_rng(6)
    arrays = {name: random.standard_normal((64, 64)).astype(np.float32) for name in ("a", "b")}
    model.git("config", "theta.packLimit", "1k")
    model.commit("Apart", **{PATH: checkpoints.safetensors(arrays)})
    model.git("remote", "add", "origin", server.repository())
    model.git("push", "-q", "origin", "main")
    os.environ["GIT_THETA_SMUDGE"] = "false"
    try:
        return Repo.clone(server.url + "/team/model.git", tmp_path / "clone", "-b", "main")
    finally:
        del os.environ["GIT_THETA_SMUDGE"]


def _objects(repo: Repo) -> int:
    return sum(file.is_file() for file in (repo.path / ".git/theta/objects").rglob("*"))


def test_only_the_objects_of_what_is_asked_for_are_fetched(clone: Repo, server) -> None:
    assert _objects(clone) == 0
    with git_theta.open(PATH, repo=clone.path) as checkpoint:
        assert list(checkpoint) == ["a", "b"]
        assert checkpoint.get_slice("a").get_shape() == [64, 64]
        assert _objects(clone) == 0
        assert checkpoint["a"].shape == (64, 64)
        assert _objects(clone) == 1
        checkpoint["a"]
        assert _objects(clone) == 1
        assert checkpoint["b"].shape == (64, 64)
        assert _objects(clone) == 2
    shutil.rmtree(clone.path / ".git/theta/objects")
    shutil.rmtree(clone.path / ".git/lfs", ignore_errors=True)
    before = len(server.requests)
    state = git_theta.load_state_dict(PATH, repo=clone.path, framework="np")
    assert list(state) == ["a", "b"]
    asked = [path for _, path in server.requests[before:] if path.endswith("/objects/batch")]
    assert len(asked) == 1  # all of them in one batch


def test_what_is_nowhere_and_what_is_damaged_are_errors_with_the_path(model: Repo, rows) -> None:
    for file in (model.path / ".git/theta/objects").rglob("*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(bytes(file.stat().st_size))
    with (
        git_theta.open(PATH, repo=model.path) as checkpoint,
        pytest.raises(errors.CorruptObjectError, match=r"HEAD:model\.safetensors"),
    ):
        checkpoint["matrix"]
    for file in (model.path / ".git/theta/objects").rglob("*"):
        if file.is_file():
            file.unlink()
    with (
        git_theta.open(PATH, repo=model.path) as checkpoint,
        pytest.raises(errors.MissingObjectError, match=r"HEAD:model\.safetensors"),
    ):
        checkpoint["matrix"]


# --- checkout and log ----------------------------------------------------------------------------


def test_checkout_writes_the_exact_file(model: Repo, committed, tmp_path: Path) -> None:
    target = tmp_path / "old.safetensors"
    before = model.read(PATH)
    git_theta.checkout("v1", PATH, target, repo=model.path)
    # The library orders metadata differently in each process and call.
    expected = model.process("cat-file", "--filters", f"v1:{PATH}").stdout
    assert len(expected) == len(checkpoints.safetensors(committed, format="np", step="1"))
    assert target.read_bytes() == expected
    git_theta.checkout("HEAD", PATH, target, repo=model.path)
    assert target.read_bytes() == model.read(PATH) == before
    assert model.git("status", "--porcelain") == ""


def test_a_checkout_that_fails_leaves_the_file_as_it_was(model: Repo, rows, tmp_path: Path) -> None:
    target = tmp_path / "kept"
    target.write_bytes(b"kept")
    for file in (model.path / ".git/theta/objects").rglob("*"):
        if file.is_file():
            file.unlink()
    with pytest.raises(errors.MissingObjectError):
        git_theta.checkout("HEAD", PATH, target, repo=model.path)
    with pytest.raises(errors.UsageError):
        git_theta.checkout("nowhere", PATH, target, repo=model.path)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["kept"]
    assert target.read_bytes() == b"kept"


def test_log_lists_the_commits_that_changed_a_checkpoint(model: Repo, committed) -> None:
    model.commit("Elsewhere", **{"notes.txt": b"x"})
    found = git_theta.log(PATH, repo=model.path)
    assert [commit.subject for commit in found] == ["Two", "One"]
    assert found[0].commit == model.git("rev-parse", "HEAD~")
    assert found[0].checkpoints[0].difference.changed == 4
    assert [it.subject for it in git_theta.log(repo=model.path, limit=1)] == ["Two"]
    assert [it.subject for it in git_theta.log(rev="v1", repo=model.path)] == ["One"]
    assert [it.subject for it in git_theta.log(rev="v1..HEAD", repo=model.path)] == ["Two"]
    with pytest.raises(errors.UsageError, match="no such revision"):
        git_theta.log(rev="nowhere", repo=model.path)


# --- diff ----------------------------------------------------------------------------------------


def test_diff_returns_what_the_command_prints(model: Repo, committed) -> None:
    moved = checkpoints.finetuned(committed)
    (found,) = git_theta.diff("v1", "HEAD", PATH, model.path, by_tensor=True)
    assert isinstance(found, git_theta.CheckpointDiff)
    assert (found.path, found.state, found.tensors, found.counts) == (
        *(PATH, "modified", 4),
        {"changed": 4},
    )
    assert [row.name for row in found.rows] == sorted(committed)
    for row in found.rows:
        old, new = (arrays[row.name].astype(np.float64) for arrays in (committed, moved))
        assert row.sums is not None
        expected = np.linalg.norm(new - old) / np.linalg.norm(old)
        assert row.sums.relative == pytest.approx(expected, rel=1e-12)
        assert (row.rank is None) == (len(row.shapes[0]) == 1)
    (short,) = git_theta.diff("v1", "HEAD", repo=model.path, values=False)
    assert (short.counts, short.rows) == (found.counts, ())


def test_diff_compares_the_index_and_the_work_tree(model: Repo, committed) -> None:
    assert git_theta.diff(repo=model.path) == []
    model.write(PATH, checkpoints.safetensors(checkpoints.tensors(seed=8)))
    assert [d.path for d in git_theta.diff(repo=model.path)] == [PATH]
    assert [d.path for d in git_theta.diff("", repo=model.path)] == [PATH]
    assert git_theta.diff("HEAD", "", repo=model.path) == []
    model.git("add", PATH)
    assert git_theta.diff("", repo=model.path) == []
    assert [d.path for d in git_theta.diff("HEAD", "", repo=model.path)] == [PATH]
    with pytest.raises(errors.UsageError, match="index"):
        git_theta.diff("", "HEAD", repo=model.path)
    with pytest.raises(errors.UsageError, match="no such revision"):
        git_theta.diff("nowhere", repo=model.path)


# --- the page ------------------------------------------------------------------------------------


def test_the_examples_of_the_page_run(
    model: Repo, committed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after another, in a repository with the history that the page begins with."""
    monkeypatch.chdir(model.path)
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(examples) >= 6
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)
    assert model.git("log", "-1", "--format=%s", "runs/a") == "Step 1000, loss 0.7"
    assert (model.path / "model-v1.safetensors").is_file()
    for name in git_theta.__all__:
        assert f"`{name}" in page or f"git_theta.{name}" in page, name
