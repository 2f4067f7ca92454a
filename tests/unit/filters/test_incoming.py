from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.checkpoint import StorageContext, clean, smudge
from git_theta.core.settings import Settings
from git_theta.errors import StoreError
from git_theta.filters.incoming import Packets, clean_incoming
from git_theta.store import Index, ObjectStore
from git_theta.testing.formats import MemorySource
from tests.support import checkpoints

CONTENT = checkpoints.safetensors(checkpoints.tensors(rows=500))
OTHER = checkpoints.safetensors(checkpoints.tensors(1, rows=500))  # the same header


def _packets(content: bytes, size: int = 65516) -> Packets:
    return Packets(iter([content[at : at + size] for at in range(0, len(content), size)]))


@pytest.fixture
def storage(tmp_path: Path):
    with Index(tmp_path / "theta") as index:
        yield StorageContext(ObjectStore(tmp_path / "theta"), index, Settings(pack_limit=1024))


def _clean(storage: StorageContext, content: bytes, file: Path):
    result = clean_incoming(_packets(content), file, "m.safetensors", storage, ())
    assert b"".join(smudge(result.manifest, storage)) == content
    return result


@given(st.lists(st.binary(max_size=9), max_size=9), st.lists(st.integers(0, 12), max_size=20))
def test_packets_are_a_stream(packets, lengths):
    content = b"".join(packets)
    stream, position = Packets(iter(packets)), 0
    for length in lengths:
        assert stream.take(length) == content[position : position + length]
        position = min(position + length, len(content))
    stream.push_back(b"again")
    assert stream.take(1000) == b"again" + content[position:]
    assert stream.take(1) == b""


def test_the_file_gives_the_layout_of_what_comes(storage, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    result = _clean(storage, CONTENT, tmp_path / "file")
    assert result.warning is None
    assert result.manifest == clean(MemorySource(CONTENT), "m.safetensors", storage).manifest


def test_other_values_under_the_same_header_need_no_second_look(storage, tmp_path):
    (tmp_path / "file").write_bytes(OTHER)
    result = _clean(storage, CONTENT, tmp_path / "file")
    assert result.manifest == clean(MemorySource(CONTENT), "m.safetensors", storage).manifest


def _reordered() -> bytes:
    arrays = checkpoints.tensors(rows=500)
    return checkpoints.safetensors({f"renamed.{name}": array for name, array in arrays.items()})


@pytest.mark.parametrize(
    "on_disk",
    [
        None,
        b"",
        b"not a checkpoint" * 5000,
        CONTENT[:-1],
        CONTENT[:50],
        CONTENT + b"x",
        _reordered(),
        checkpoints.safetensors({"w": np.zeros(200_000, np.float32)}),
    ],
    ids=["absent", "empty", "opaque", "shorter", "cut", "longer", "renamed", "another"],
)
def test_other_content_than_the_file_is_described_as_what_it_is(storage, tmp_path, on_disk):
    if on_disk is not None:
        (tmp_path / "file").write_bytes(on_disk)
    result = _clean(storage, CONTENT, tmp_path / "file")
    expected = clean(MemorySource(CONTENT), "m.safetensors", storage)
    assert result == expected
    assert result.manifest.format == "safetensors"
    assert not list((tmp_path / "theta/tmp").glob("tmp*"))


def test_a_torch_file_whose_directory_is_at_its_end(storage, tmp_path):
    content = checkpoints.torch_zip(checkpoints.tensors(rows=50))
    (tmp_path / "file").write_bytes(content)
    assert _clean(storage, content, tmp_path / "file").manifest.format == "torch"
    other = checkpoints.torch_zip({"x": np.ones((70, 30), np.float32)})
    result = _clean(storage, other, tmp_path / "file")
    assert [entry.name for entry in result.manifest.tensors if entry.dtype == "F32"] == ["x"]


def test_what_no_format_knows_comes_with_the_warning(storage, tmp_path):
    (tmp_path / "file").write_bytes(b"something else")
    assert _clean(storage, b"something else", tmp_path / "file").warning


def test_a_link_is_not_followed(storage, tmp_path):
    (tmp_path / "target").write_bytes(b"x" * len(CONTENT))
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert _clean(storage, CONTENT, tmp_path / "link").manifest.format == "safetensors"


def test_a_place_for_the_copy_that_cannot_be_made_is_an_error(storage, tmp_path):
    _clean(storage, CONTENT, tmp_path / "absent")
    folder = tmp_path / "theta/tmp"
    for leftover in folder.iterdir():
        leftover.unlink()
    folder.rmdir()
    folder.write_bytes(b"a file where the folder should be")
    with pytest.raises(StoreError):
        _clean(storage, CONTENT, tmp_path / "absent")
