"""The refresh after a checkout: bytes that were just written are not read again."""

from __future__ import annotations

import os
from pathlib import Path

from git_theta.filters.checked_out import backdate, handed_over, is_untouched, note, received


def _written(path: Path, content: bytes = b"content"):
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        return backdate(file)


def _change(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other")


def test_a_file_that_nobody_has_written_to_is_known(tmp_path):
    file = tmp_path / "file"
    stamp = _written(tmp_path / "temporary")
    (tmp_path / "temporary").rename(file)
    noted = note(file, stamp, b"text")
    assert noted
    with handed_over({"a path \udcff": noted}, tmp_path / "notes") as environment:
        assert received(environment) == {"a path \udcff": noted}
    assert received({}) == {}
    assert not list((tmp_path / "notes").iterdir())
    assert is_untouched(file, noted)


def test_a_write_right_after_the_file_got_its_name_is_noticed(tmp_path):
    """In the same tick of a coarse clock, too: what we wrote has an older time."""
    file = tmp_path / "file"
    stamp = _written(file)
    noted = note(file, stamp, b"text")
    _change(file)
    assert noted
    assert not is_untouched(file, noted)
    assert note(file, stamp, b"text") is None
    file.unlink()
    assert not is_untouched(file, noted)


def test_another_file_of_equal_size_and_time_is_not_taken_for_it(tmp_path):
    file, other = tmp_path / "file", tmp_path / "other"
    stamp = _written(file)
    noted = note(file, stamp, b"text")
    _written(other, b"CONTENT")
    os.utime(other, ns=(stamp.modified, stamp.modified))
    other.replace(file)
    assert noted
    assert not is_untouched(file, noted)
