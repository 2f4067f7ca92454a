"""Who has a file open to write; most of it is seen where files are added (filters, git)."""

from __future__ import annotations

from threading import Event, Thread

from git_theta.core.file_watch import has_writer, writers_held_off


def test_nobody_opens_a_file_to_write_until_they_may(tmp_path):
    path, opened = tmp_path / "file", Event()
    path.write_bytes(b"content")

    def write():
        with path.open("ab"):
            opened.set()

    with path.open("rb") as file:
        with writers_held_off(file) as alone:
            assert alone
            writer = Thread(target=write)
            writer.start()
            assert not opened.wait(0.1)
        assert opened.wait(10)
        writer.join()
        assert has_writer(file) is False


def test_a_writer_who_is_there_is_not_held_off(tmp_path):
    path = tmp_path / "file"
    with path.open("ab"), path.open("rb") as file:
        assert has_writer(file) is True
        with writers_held_off(file) as alone:
            assert not alone
