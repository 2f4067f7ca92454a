from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.checkpoint.clean import clean
from git_theta.checkpoint.context import StorageContext
from git_theta.checkpoint.smudge import smudge
from git_theta.core.settings import Settings
from git_theta.errors import ChangedError, StoreError
from git_theta.filters.incoming import Packets, check_empty, clean_incoming
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


# --- a file that changes while it is added -------------------------------------------------------


def _changing(content: bytes, change) -> Packets:
    """The bytes as git sends them; ``change`` happens before the last ones."""

    def packets():
        yield content[:-1000]
        change()
        yield content[-1000:]

    return Packets(packets())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(CONTENT)
    old = time.time_ns() - 10**12 + 1
    os.utime(tmp_path / "file", ns=(old, old))
    return tmp_path / "file"


def _write_in_place(file: Path) -> None:
    with file.open("r+b") as writer:
        writer.seek(100_000)
        writer.write(b"other")


def _write_in_place_and_hide_it(file: Path) -> None:
    status = file.stat()
    _write_in_place(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def _grow(file: Path) -> None:
    with file.open("ab") as writer:
        writer.write(b"more")


def _save_again(file: Path) -> None:
    file.write_bytes(CONTENT[:5000])


@pytest.mark.parametrize(
    "change", [_write_in_place, _write_in_place_and_hide_it, _grow, _save_again]
)
def test_a_file_that_changes_meanwhile_is_not_stored(change, storage, file):
    content = _changing(CONTENT, lambda: change(file))
    with pytest.raises(ChangedError, match="writes to it in place") as caught:
        clean_incoming(content, file, "m.safetensors", storage, (), time.time_ns())
    assert "rename the file" in caught.value.hint


def test_a_memory_map_leaves_no_trace_in_times_and_is_noticed(storage, file):
    mapped = np.memmap(file, np.uint8, "r+")
    mapped[100_000] += 1  # the page is writable from now on, without a fault
    os.utime(file, ns=(10**18 + 1, 10**18 + 1))
    before, content = file.stat(), file.read_bytes()

    def change() -> None:
        mapped[100_000] += 1

    with pytest.raises(ChangedError):
        clean_incoming(_changing(content, change), file, "m", storage, (), time.time_ns())
    assert (file.stat().st_mtime_ns, file.stat().st_ctime_ns) == (
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


def test_a_file_that_was_written_between_gits_first_read_and_ours(storage, file):
    since = time.time_ns()
    _write_in_place(file)
    with pytest.raises(ChangedError):
        clean_incoming(_packets(CONTENT), file, "m.safetensors", storage, (), since)
    # What git itself has written since then is no reason.
    _clean(storage, CONTENT, file)


def test_what_changes_nothing_is_no_change(storage, file):
    def change() -> None:
        file.touch()
        file.chmod(0o600)

    with file.open("r+b"):  # open for writing, and not written to
        result = clean_incoming(_changing(CONTENT, change), file, "m", storage, (), 0)
    assert b"".join(smudge(result.manifest, storage)) == CONTENT


def test_a_file_that_is_replaced_whole_does_no_harm(storage, file):
    def replace() -> None:
        (file.parent / "new").write_bytes(OTHER)
        (file.parent / "new").replace(file)

    result = clean_incoming(
        _changing(CONTENT, replace), file, "m.safetensors", storage, (), time.time_ns()
    )
    assert b"".join(smudge(result.manifest, storage)) == CONTENT


def test_git_that_only_compares_is_not_stopped(storage, file):
    content = _changing(CONTENT, lambda: _write_in_place(file))
    clean_incoming(content, file, "m", storage, (), time.time_ns(), only_compares=True)


def test_a_file_that_is_empty_for_a_moment(file, tmp_path):
    check_empty(file, time.time_ns())  # git was sent nothing, and nobody writes: not this file
    check_empty(tmp_path / "absent", 0)
    for mode in ("r+b", "wb"):
        with file.open(mode), pytest.raises(ChangedError):
            check_empty(file, time.time_ns())
    check_empty(file, time.time_ns() + 10**12)  # it is empty, and nobody writes
