"""Errors of the system, in words that say what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from git_theta.core import os_errors


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_errors_say_what_they_mean(number: int, words: str) -> None:
    error = os_errors.store_error(OSError(number, os.strerror(number)), Path("place"))
    assert words in error.message
    assert error.path == "place"
    assert (error.hint is None) == (number == errno.EIO)


def test_only_errors_of_the_system_are_told_as_such() -> None:
    told = os_errors.of_the_system(PermissionError(errno.EACCES, "Permission denied", "place"))
    assert told is not None
    assert (told.message, told.path) == ("permission denied", "place")
    assert os_errors.of_the_system(FileNotFoundError(errno.ENOENT, "No such file", "place")) is None
