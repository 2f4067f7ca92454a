from __future__ import annotations

from pathlib import Path

import pytest

from git_theta.checkpoint.on_disk import FileContent
from git_theta.core.files import FileSource
from git_theta.core.settings import Settings
from git_theta.errors import ChangedError
from tests.support import checkpoints

SETTINGS = Settings(chunk_size=1024, threads=2)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    path.write_bytes(checkpoints.safetensors())
    return path


def test_a_file_is_described_and_its_chunks_are_read_again(file):
    arrays = checkpoints.tensors()
    with FileSource(file) as source:
        content = FileContent(source, file.name, SETTINGS)
        found = {
            entry.name: b"".join(map(bytes, content.read(entry.chunks)))
            for entry in content.manifest.tensors
        }
    assert found == {name: array.tobytes() for name, array in arrays.items()}
    weight = next(e for e in content.manifest.tensors if e.name == "layer.0.weight")
    assert [chunk.length for chunk in weight.chunks] == [1024, 1024]
    assert not content.manifest.objects()


def test_a_file_that_changes_while_it_is_read_is_refused(file):
    with FileSource(file) as source:
        content = FileContent(source, file.name, SETTINGS)
        entry = content.manifest.tensors[0]
        with file.open("r+b") as writer:
            writer.seek(-entry.length * 4, 2)
            writer.write(bytes(entry.length * 4))
        with pytest.raises(ChangedError, match="changed while it was read"):
            [content.read(each.chunks) for each in content.manifest.tensors]
