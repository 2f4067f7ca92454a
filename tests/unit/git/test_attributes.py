from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from git_theta.errors import UsageError
from git_theta.git import Repository, attributes
from tests.support.repo import Repo

OURS = b"filter=theta diff=theta merge=theta -text"


@pytest.fixture
def found(repo: Repo):
    with Repository.discover(repo.path) as found:
        yield found


def content(folder: Path) -> bytes:
    return (folder / ".gitattributes").read_bytes()


def given_file(folder: Path, text: bytes) -> None:
    (folder / ".gitattributes").write_bytes(text)


# --- track ---------------------------------------------------------------------------------------


def test_a_new_file(tmp_path):
    assert attributes.track(tmp_path, ["*.pt", "*.safetensors"]) == ["*.pt", "*.safetensors"]
    assert content(tmp_path) == b"*.pt %b\n*.safetensors %b\n" % (OURS, OURS)
    assert stat.S_IMODE((tmp_path / ".gitattributes").stat().st_mode) & 0o444 == 0o444
    assert attributes.patterns(tmp_path) == ["*.pt", "*.safetensors"]


def test_tracking_twice_changes_nothing(tmp_path):
    attributes.track(tmp_path, ["*.pt"])
    before = (tmp_path / ".gitattributes").stat()
    assert attributes.track(tmp_path, ["*.pt", "./*.pt"]) == []
    assert (tmp_path / ".gitattributes").stat().st_ino == before.st_ino


def test_nothing_to_track_writes_nothing(tmp_path):
    assert attributes.track(tmp_path, []) == []
    assert not (tmp_path / ".gitattributes").exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"# mine\n\n*.txt text\n", b"# mine\n\n*.txt text\n*.pt %b\n" % OURS),
        (b"*.txt text", b"*.txt text\n*.pt %b\n" % OURS),
        (b"*.txt text\r\n*.c text\r\n", b"*.txt text\r\n*.c text\r\n*.pt %b\r\n" % OURS),
        (b"*.txt text\r\n*.c text", b"*.txt text\r\n*.c text\n*.pt %b\n" % OURS),
        (b"\xff\xfe text\n*.pt -filter\n", b"\xff\xfe text\n*.pt -filter\n*.pt %b\n" % OURS),
        (b"*.pt filter=theta\n", b"*.pt %b\n" % OURS),
        (
            b"*.pt  filter=theta   lockable\n",
            b"*.pt filter=theta lockable diff=theta merge=theta -text\n",
        ),
        (b"a\x0cb text\n", b"a\x0cb text\n*.pt %b\n" % OURS),
    ],
)
def test_what_is_there_is_kept(before, after, tmp_path):
    given_file(tmp_path, before)
    (tmp_path / ".gitattributes").chmod(0o640)
    assert attributes.track(tmp_path, ["*.pt"]) == ["*.pt"]
    assert content(tmp_path) == after
    assert stat.S_IMODE((tmp_path / ".gitattributes").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "later",
    [
        b"*.pt filter=lfs diff=lfs merge=lfs -text",
        b"* filter=lfs",
        b"*.pt -filter",
        b"*.pt !merge",
        b"*.pt binary",
        b"*.pt text=auto",
        b"/*.pt filter=lfs",
    ],
)
def test_our_line_moves_behind_one_that_overrides_it(later, tmp_path, repo, found):
    line = b"*.pt " + OURS + b"\n"
    given_file(tmp_path, line + later + b"\n")
    assert len(attributes.overridden(tmp_path)) == 1
    assert attributes.track(tmp_path, ["*.pt"]) == ["*.pt"]
    assert content(tmp_path) == later + b"\n" + line
    assert attributes.overridden(tmp_path) == []
    given_file(repo.path, content(tmp_path))
    for name in ("filter", "merge", "diff"):
        assert attributes.effective(found, ["a.pt"], name) == {"a.pt": "theta"}
    assert attributes.effective(found, ["a.pt"], "text") == {"a.pt": "unset"}


@pytest.mark.parametrize(
    "later",
    [
        b"special.pt filter=lfs",
        b"*.safetensors filter=lfs",
        b"*.pt lockable",
        b"# *.pt filter=lfs",
        b"[attr]*.pt filter=lfs",
        b"sub/*.pt filter=lfs",
        b"",
    ],
)
def test_exceptions_that_the_user_made_stay_exceptions(later, tmp_path):
    text = b"*.pt " + OURS + b"\n" + later + b"\n"
    given_file(tmp_path, text)
    assert attributes.track(tmp_path, ["*.pt"]) == []
    assert attributes.overridden(tmp_path) == []
    assert content(tmp_path) == text


def test_a_narrow_pattern_of_ours_is_overridden_by_a_wide_one(tmp_path):
    given_file(tmp_path, b"models/big.pt %b\n*.pt filter=lfs\n" % OURS)
    ((ours, later),) = attributes.overridden(tmp_path)
    assert (ours.number, ours.pattern) == (1, "models/big.pt")
    assert (later.number, later.text.strip()) == (2, "*.pt filter=lfs")


# --- untrack -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"*.txt text\n*.pt %b\n*.c text\n", b"*.txt text\n*.c text\n"),
        (b"*.pt %b lockable\r\n*.pt %b\r\n*.c text\r\n", b"*.pt lockable\r\n*.c text\r\n"),
        (b"*.pt filter=theta", b""),
        (b'"a b" filter=lfs\n*.pt filter=theta\n', b'"a b" filter=lfs\n'),
    ],
)
def test_untrack_takes_only_what_is_ours(before, after, tmp_path):
    given_file(tmp_path, before.replace(b"%b", OURS))
    assert attributes.untrack(tmp_path, ["*.pt", "*.c", "*.other"]) == ["*.pt"]
    assert content(tmp_path) == after


def test_untrack_without_a_file(tmp_path):
    assert attributes.untrack(tmp_path, ["*.pt"]) == []
    assert not (tmp_path / ".gitattributes").exists()


# --- patterns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("my model.pt", "my model.pt"),
        ("a\tb.pt", "a\tb.pt"),
        ("#first.pt", "#first.pt"),
        ('"quoted".pt', '"quoted".pt'),
        ("models/", "models/deep/down.pt"),
        ("./here.pt", "here.pt"),
        ("ünïcode-*.pt", "ünïcode-1.pt"),
        ("dir one/**/*.pt", "dir one/x/y.pt"),
        (os.fsdecode(b"odd-\xff.pt"), os.fsdecode(b"odd-\xff.pt")),
    ],
)
def test_git_matches_what_was_meant(pattern, path, repo, found):
    attributes.track(repo.path, [pattern])
    assert attributes.effective(found, [path]) == {path: "theta"}
    assert attributes.effective(found, [f"{path}x"]) in (
        {f"{path}x": "unspecified"},
        {f"{path}x": "theta"} if pattern == "models/" else None,
    )
    assert attributes.track(repo.path, [pattern]) == []
    assert attributes.untrack(repo.path, [pattern]) == [pattern]
    assert attributes.effective(found, [path]) == {path: "unspecified"}


def test_brackets_that_match_only_as_they_are_stand_for_themselves(repo, found):
    repo.write("my model [v1]/a.bin", b"")
    assert attributes.track(repo.path, ["my model [v1]/*.bin"]) == ["my model [v1]/*.bin"]
    assert attributes.effective(found, ["my model [v1]/a.bin", "my model v/a.bin"]) == {
        "my model [v1]/a.bin": "theta",
        "my model v/a.bin": "unspecified",
    }
    assert attributes.track(repo.path, ["my model [v1]/*.bin"]) == []
    assert attributes.untrack(repo.path, ["my model [v1]/*.bin"]) == ["my model [v1]/*.bin"]
    assert content(repo.path) == b""


@pytest.mark.parametrize("existing", ["shard-1.pt", "nothing.txt"])
def test_brackets_are_a_set_where_it_matches_or_nothing_does(existing, repo, found):
    repo.write(existing, b"")
    repo.write("sub/shard-2.pt", b"") if existing == "shard-1.pt" else None
    attributes.track(repo.path, ["shard-[0-9].pt"])
    assert attributes.effective(found, ["sub/shard-2.pt"]) == {"sub/shard-2.pt": "theta"}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.pt", True),
        ("sub/", True),
        ("./sub/*.pt", True),
        ("/*.pt", False),
        ("*.bin", False),
        ("sub/[v1].pt", False),
        ("sub/\\[v1\\].pt", True),
    ],
)
def test_what_a_pattern_matches(pattern, expected, repo):
    repo.write("sub/[v1].pt", b"")
    assert attributes.matches(repo.path, pattern) is expected


@pytest.mark.parametrize("pattern", ["", "!*.pt", "two\nlines", "/../up.pt"])
def test_what_git_cannot_take_is_refused_before_anything_is_written(pattern, tmp_path):
    with pytest.raises(UsageError, match="is not a pattern"):
        attributes.track(tmp_path, ["*.pt", pattern])
    assert not (tmp_path / ".gitattributes").exists()


def test_patterns_are_shown_as_they_were_given(tmp_path):
    given = ["my model.pt", "#first.pt", "*.pt"]
    attributes.track(tmp_path, given)
    assert attributes.patterns(tmp_path) == given
    assert attributes.unescape("") == ""


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), min_size=1), max_size=5
    )
)
def test_tracking_and_untracking_is_no_change(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("attributes")
    before = b"# mine\n*.txt text\n"
    given_file(folder, before)
    given = [name for name in names if not name.startswith(("!", "/.."))]
    attributes.track(folder, given)
    attributes.untrack(folder, given)
    assert content(folder) == before


# --- in a repository -----------------------------------------------------------------------------


def test_effective_for_many_odd_paths(repo, found):
    attributes.track(repo.path, ["*.pt"])
    odd = os.fsdecode(b"odd \xff\n.pt")
    asked = ["a.pt", "b.bin", "deep/down/c.pt", odd]
    assert attributes.effective(found, asked) == {
        "a.pt": "theta",
        "b.bin": "unspecified",
        "deep/down/c.pt": "theta",
        odd: "theta",
    }
    assert attributes.effective(found, []) == {}


def test_folders_with_attributes(repo, found, remote):
    assert attributes.folders(found) == []
    for folder in ("b/c", "b", "a", "."):
        repo.write(f"{folder}/.gitattributes", b"*.pt filter=theta\n")
    repo.write("ignored/.gitattributes", b"")
    repo.write(".gitignore", b"ignored\n")
    repo.git("add", "b/c/.gitattributes", "a/.gitattributes")
    (repo.path / "a/.gitattributes").unlink()
    expected = [repo.path, repo.path / "b", repo.path / "b/c"]
    assert attributes.folders(found) == expected
    assert attributes.folders(Repository.discover(remote.path)) == []
