"""Files that were just checked out: whoever writes to one afterwards is noticed."""

from __future__ import annotations

import os

import pytest

from git_theta.filters.checked_out import backdate, placed


@pytest.fixture
def index(tmp_path):
    file = tmp_path / "index"
    file.write_bytes(b"")
    os.utime(file, (1_700_000_000, 1_700_000_000))
    return file


def _written(path, index, content=b"content"):
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        return backdate(file, index)


def test_a_file_that_got_its_name_is_known(tmp_path, index):
    before = _written(tmp_path / "temporary", index)
    (tmp_path / "temporary").rename(tmp_path / "file")
    assert placed(tmp_path / "file", before) == (tmp_path / "file").lstat()


def test_its_time_is_before_that_of_the_index_and_before_now(tmp_path, index):
    """Else git would read it again, or take what is written to it at once for the same."""
    assert _written(tmp_path / "file", index).st_mtime < 1_700_000_000 - 2
    index.unlink()
    now = (tmp_path / "file").stat().st_ctime
    assert now - 10 < _written(tmp_path / "file", index).st_mtime < now


def test_a_write_right_after_it_got_its_name_is_noticed(tmp_path, index):
    before = _written(tmp_path / "file", index)
    with (tmp_path / "file").open("r+b") as file:
        file.write(b"other")
    assert placed(tmp_path / "file", before) is None


def test_another_file_of_equal_size_and_time_is_not_taken_for_it(tmp_path, index):
    before = _written(tmp_path / "file", index)
    _written(tmp_path / "other", index, b"CONTENT")
    (tmp_path / "other").replace(tmp_path / "file")
    assert placed(tmp_path / "file", before) is None
