"""Files of revisions through fsspec, and what is decoded for a part of one."""

from __future__ import annotations

import fsspec
import numpy as np
import pytest

from git_theta.checkpoint import chunk_decoder
from git_theta.integrations import fsspec as integration
from tests.support import checkpoints
from tests.support.repo import Repo

PATH = "models/m.safetensors"
ARRAYS = checkpoints.tensors(rows=256)
NEXT = checkpoints.finetuned(ARRAYS)


@pytest.fixture
def files(once, home, model: Repo) -> fsspec.AbstractFileSystem:
    """Two versions: `runs/one`, and HEAD."""

    def work() -> None:
        model.git("config", "theta.chunkSize", "16k")
        model.commit_files({PATH: checkpoints.safetensors(ARRAYS), "notes.txt": b"first"})
        model.git("branch", "runs/one")
        model.commit_files({PATH: checkpoints.safetensors(NEXT)})

    once("fsspec", home, model, work)
    return fsspec.filesystem("gittheta", repo=str(model.path), skip_instance_cache=True)


def test_files_of_any_revision_are_read(files, model: Repo) -> None:
    for rev in ("HEAD", "HEAD~1", "runs/one", "main"):
        expected = model.process("cat-file", "--filters", f"{rev}:{PATH}").stdout
        assert files.cat(f"gittheta://{rev}/{PATH}") == expected
        assert files.info(f"{rev}/{PATH}")["size"] == len(expected)
    assert files.cat("runs/one/notes.txt") == b"first"
    with fsspec.open(f"gittheta://HEAD/{PATH}", repo=str(model.path)) as file:
        assert file.read() == model.read(PATH)
    assert files.ls("runs/one", detail=False) == [
        "runs/one/.gitattributes",
        "runs/one/models",
        "runs/one/notes.txt",
    ]
    assert files.glob("main/models/*.safetensors") == [f"main/{PATH}"]
    assert files.isdir("main/models")
    assert not files.exists("main/models/other")


def test_a_part_decodes_its_chunks_alone(files, model: Repo, monkeypatch) -> None:
    seen: list[str] = []
    real = chunk_decoder.decode

    def decode(frames, chunk, known):
        seen.append(chunk.hash)
        return real(frames, chunk, known)

    monkeypatch.setattr(integration.chunk_decoder, "decode", decode)
    whole = model.read(PATH)
    with files.open(f"HEAD/{PATH}", block_size=1024, cache_type="none") as file:
        assert seen == []
        file.seek(len(whole) - 2000)
        assert file.read(900) == whole[-2000:-1100]
        assert file.read(1100) == whole[-1100:]
        assert len(seen) == 1
        file.seek(0)
        assert file.read(64) == whole[:64]
        assert len(seen) == 2


def test_numpy_and_safetensors_take_the_file(files) -> None:
    from safetensors.numpy import load

    found = load(files.cat(f"HEAD/{PATH}"))
    for name, array in NEXT.items():
        np.testing.assert_array_equal(found[name], array)


def test_what_is_not_there(files) -> None:
    for path in (f"nowhere/{PATH}", "HEAD/models/other.pt", "HEAD/other"):
        with pytest.raises(FileNotFoundError):
            files.cat(path)
        with pytest.raises(FileNotFoundError):
            files.ls(path)
    with pytest.raises(NotImplementedError):
        files.open(f"HEAD/{PATH}", "wb")
