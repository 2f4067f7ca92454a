"""Positioned reads, files that appear whole, links."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_theta.core import files
from git_theta.core.files import (
    FileSource,
    atomic_file,
    link_or_copy,
)
from git_theta.errors import ChangedError, StoreError
from tests.support.failures import largest_file, unprivileged


class TestSources:
    def test_reads_any_range(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"0123456789")
        with FileSource(file) as source:
            assert source.size == 10
            assert source.read(3, 4) == b"3456"
            assert source.read(10, 0) == b""
            assert source.read(0, 10) == b"0123456789"

    def test_views_any_range(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(bytes(range(256)) * 100)
        with FileSource(file) as source:
            assert source.view(3, 5000) == file.read_bytes()[3:5003]
            assert source.view(25_600, 0) == b""
            with pytest.raises(ChangedError):
                source.view(25_000, 601)

    def test_a_file_that_shrinks_is_an_error_not_a_crash(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(bytes(100))
        with FileSource(file) as source:
            os.truncate(file, 50)
            with pytest.raises(ChangedError, match="became shorter") as caught:
                source.read(40, 20)
        assert caught.value.path == str(file)
        assert caught.value.hint

    def test_threads_do_not_disturb_each_other(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"".join(i.to_bytes(4, "little") for i in range(10_000)))
        wrong: list[int] = []

        def read(first: int) -> None:
            mine = range(first, 10_000, 4)
            wrong.extend(i for i in mine if source.read(4 * i, 4) != i.to_bytes(4, "little"))

        with FileSource(file) as source:
            threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert not wrong


class TestAtomicFile:
    def test_appears_whole_at_the_end(self, tmp_path: Path) -> None:
        target = tmp_path / "new" / "file"
        with atomic_file(target) as file:
            file.write(b"content")
            assert not target.exists()
        assert target.read_bytes() == b"content"
        assert list(target.parent.iterdir()) == [target]

    def test_replaces(self, tmp_path: Path) -> None:
        target = tmp_path / "file"
        target.write_bytes(b"old")
        with atomic_file(target) as file:
            file.write(b"new")
        assert target.read_bytes() == b"new"

    @pytest.mark.parametrize(("mode", "result"), [(0o666, 0o640), (0o444, 0o440), (0o777, 0o750)])
    def test_has_the_mode_less_the_umask(self, tmp_path: Path, mode: int, result: int) -> None:
        before = os.umask(0o027)
        try:
            with atomic_file(tmp_path / "file", mode) as file:
                file.write(b"x")
        finally:
            os.umask(before)
        assert (tmp_path / "file").stat().st_mode & 0o777 == result

    def test_uses_the_scratch_folder(self, tmp_path: Path) -> None:
        scratch = tmp_path / "tmp"
        with atomic_file(tmp_path / "a" / "file", scratch=scratch, sync_name=False):
            assert len(list(scratch.iterdir())) == 1
        assert not list(scratch.iterdir())
        assert (tmp_path / "a" / "file").exists()

    @pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
    def test_a_failure_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, failure: type[BaseException]
    ) -> None:
        target = tmp_path / "file"
        target.write_bytes(b"old")
        with pytest.raises(failure), atomic_file(target) as file:  # noqa: PT012
            file.write(b"half")
            raise failure
        assert target.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [target]

    def test_a_write_that_fails_half_way(self, tmp_path: Path) -> None:
        with (
            largest_file(1 << 16),
            pytest.raises(StoreError, match="larger than is allowed") as caught,
            atomic_file(tmp_path / "file") as file,
        ):
            file.write(bytes(1 << 20))
        assert caught.value.path == str(tmp_path / "file")
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_may_not_be_written(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o555)
        with (
            unprivileged(),
            pytest.raises(StoreError, match="permission denied") as caught,
            atomic_file(tmp_path / "folder" / "file"),
        ):
            pytest.fail("opened")
        assert caught.value.hint


class TestLinkOrCopy:
    def test_links(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "deep" / "er" / "target"
        source.write_bytes(b"content")
        link_or_copy(source, target)
        assert target.samefile(source)
        assert list(target.parent.iterdir()) == [target]

    def test_replaces_another_file(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(b"content")
        target.write_bytes(b"damaged")
        link_or_copy(source, target)
        assert target.samefile(source)

    def test_twice_is_once(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(b"content")
        link_or_copy(source, target)
        link_or_copy(source, target)
        assert {file.name for file in tmp_path.iterdir()} == {"source", "target"}
        assert source.read_bytes() == b"content"

    def test_follows_a_symbolic_link(self, tmp_path: Path) -> None:
        (tmp_path / "real").write_bytes(b"content")
        (tmp_path / "source").symlink_to("real")
        link_or_copy(tmp_path / "source", tmp_path / "target")
        assert not (tmp_path / "target").is_symlink()
        assert (tmp_path / "target").read_bytes() == b"content"

    def test_a_source_that_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            link_or_copy(tmp_path / "source", tmp_path / "target")

    def test_copies_to_another_file_system(self, tmp_path: Path, other_disk: Path) -> None:
        source, target = tmp_path / "source", other_disk / "target"
        source.write_bytes(b"content")
        link_or_copy(source, target, 0o444)
        assert target.read_bytes() == b"content"
        assert not target.stat().st_mode & 0o222
        target.chmod(0o644)
        target.write_bytes(b"damaged")
        link_or_copy(source, target)
        assert target.read_bytes() == b"content", "whatever was there is replaced"

    def test_a_target_that_may_not_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "source").write_bytes(b"content")
        (tmp_path / "folder").mkdir(mode=0o555)
        with unprivileged(), pytest.raises(StoreError, match="permission denied"):
            link_or_copy(tmp_path / "source", tmp_path / "folder" / "target")
        assert not list((tmp_path / "folder").iterdir())


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than ``tmp_path``."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    folder = memory / f"git-theta-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    yield folder
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def test_stale_files_are_removed_and_young_ones_spared(tmp_path: Path) -> None:
    old, young, folder = tmp_path / "old", tmp_path / "young", tmp_path / "folder"
    folder.mkdir()
    for file in (old, young):
        file.write_bytes(b"x")
    for path in (old, folder):
        os.utime(path, (time.time() - 100, time.time() - 100))
    files.remove_stale(tmp_path, 50)
    assert set(tmp_path.iterdir()) == {young, folder}
    files.remove_stale(tmp_path / "absent", 50)


@pytest.mark.parametrize("possible", [True, False])
def test_a_file_is_written_aside_where_it_can_be(possible: bool, tmp_path: Path) -> None:
    folder, aside = tmp_path / "folder", tmp_path / "aside"
    if not possible:
        aside.write_bytes(b"")
    with atomic_file(folder / "file", aside=aside) as output:
        output.write(b"content")
        assert list(folder.iterdir()) == [] or not possible
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("file", b"content")]
    assert not possible or list(aside.iterdir()) == []


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StoreError, match="not a regular file"):
        files.FileSource(tmp_path / "pipe")
