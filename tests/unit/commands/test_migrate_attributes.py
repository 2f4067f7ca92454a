"""Attributes files that are edited for a migration, and come back as they were."""

from __future__ import annotations

import pytest

from git_theta.commands.migrate.attributes import LFS, PLAIN, THETA, appended, converted

LINE = "*.bin filter=lfs diff=lfs merge=lfs -text"
OURS = "*.bin filter=theta diff=theta merge=theta -text"


@pytest.mark.parametrize(
    "text",
    [
        f"{LINE}\n",
        LINE,
        f"# c\n\n{LINE}\r\n*.x text\r\n",
        f"  {LINE.replace(' ', chr(9))} lockable\n",
        f"*.png filter=lfs diff=lfs merge=lfs -text\n{LINE}\n",
        '"a b.bin" filter=lfs diff=lfs merge=lfs -text\n',
    ],
)
def test_lines_of_git_lfs_come_back(text):
    there = converted(text, "", ["*.bin"], LFS, THETA)
    assert there.count("filter=theta") == 1
    assert converted(there, "", ["*"], THETA, LFS) == text


@pytest.mark.parametrize("text", ["", "*.x text\n", "*.x text", "a\r\nb\r\n"])
def test_added_lines_go_away(text):
    there = appended(text, [OURS, OURS.replace("bin", "pt")])
    assert there.count("filter=theta") == 2
    assert there.endswith("\n") == (not text or text.endswith("\n"))
    assert converted(there, "", ["*"], THETA, PLAIN) == text


def test_other_lines_stay():
    text = f"# {LINE}\n[attr]lfs filter=lfs\n*.bin filter=lfsx\n*.png filter=lfs\n* filter=lfs\n"
    assert converted(text, "", ["*.bin"], LFS, THETA) == text


@pytest.mark.parametrize(
    ("glob", "folder", "pattern", "is_meant"),
    [
        ("*.bin", "", "models/*.bin", True),
        ("*.bin", "sub", "*.bin", True),
        ("sub/**", "sub", "*.bin", True),
        ("other/**", "sub", "*.bin", False),
        ("models/*.bin", "", "*.bin", False),
        ("*.bin", "", "models/**", False),
    ],
)
def test_a_line_is_meant_where_the_glob_takes_all_of_its_files(glob, folder, pattern, is_meant):
    text = f"{pattern} filter=lfs diff=lfs merge=lfs -text\n"
    assert ("theta" in converted(text, folder, [glob], LFS, THETA)) == is_meant


def test_words_that_a_line_lacks_are_added():
    assert converted("*.bin filter=lfs\n", "", ["*.bin"], LFS, THETA) == (
        "*.bin filter=theta diff=theta merge=theta -text\n"
    )
    assert converted("*.bin eol=lf filter=theta -text\n", "", ["*"], THETA, PLAIN) == (
        "*.bin eol=lf\n"
    )
