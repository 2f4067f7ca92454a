"""Files that git need not read: it says itself what it makes of its index."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Timer

import pytest

from git_theta.git import index_file
from git_theta.git.index_stats import Written, backdate, placed, record, settle
from tests.support.repo import Repo

NAME = "dir/model \udcff.bin"
# Before and after it, of common beginnings, and longer than an entry can say.
OTHERS = ("README", "dir/a", "dir/model", f"zoo/{'long' * 1200}")
OLD = 1_700_000_000
BEGAN = OLD * 10**9 - 1


def _replace(repo: Repo, content: bytes = b"tensor", time: int = OLD) -> Written:
    """Write a file behind git's back: another inode, another time."""
    file, temporary = repo.path / NAME, repo.path / "temporary"
    file.parent.mkdir(exist_ok=True)
    temporary.write_bytes(content)
    os.utime(temporary, (time, time))
    temporary.replace(file)
    return Written(file, file.lstat(), content)


def _index(repo: Repo) -> Path:
    return repo.path / ".git" / "index"


def _fill(repo: Repo) -> None:
    for name in (*OTHERS, NAME):
        blob = repo.git("hash-object", "-w", "--stdin", stdin=b"tensor")
        repo.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")


def _leave_out_the_checksum(repo: Repo) -> None:
    """As git 2.40 does with ``index.skipHash``."""
    width = len(repo.git("hash-object", "--stdin", stdin=b"")) // 2
    _index(repo).write_bytes(_index(repo).read_bytes()[:-width] + bytes(width))


KINDS = ["plain", "version 4", "sha256", "extended flags", "extensions", "blank", "sha256, blank"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_index_is_what_git_makes_of_it_when_it_reads_the_file(make_repo, kind):
    repo = make_repo("repo", *(["--object-format=sha256"] if "sha256" in kind else []))
    repo.git("config", "index.version", "4" if kind == "version 4" else "2")
    _fill(repo)
    if kind == "extended flags":
        repo.git("update-index", "--skip-worktree", "README")
    if kind == "extensions":
        repo.git("update-index", "--force-untracked-cache")
        repo.git("write-tree")
    if "blank" in kind:
        _leave_out_the_checksum(repo)
    of = _replace(repo)
    before, time = _index(repo).read_bytes(), _index(repo).stat().st_mtime_ns
    assert record(_index(repo), {NAME: of, "not there": of}) == {NAME}
    assert _index(repo).stat().st_mtime_ns == time
    after, ours = _index(repo).read_bytes(), repo.git("ls-files", "--debug", "-z", "--stage")
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    assert 0 < changed <= 36 + 32  # nine numbers and the checksum
    assert repo.git("diff-files", "--", NAME) == ""
    _index(repo).write_bytes(before)
    assert repo.git("diff-files", "--", NAME) != ""
    repo.git("update-index", "-q", "-z", "--stdin", stdin=os.fsencode(NAME) + b"\0")
    assert repo.git("ls-files", "--debug", "-z", "--stage") == ours


def _no_change(repo: Repo) -> None:
    """Leave all as it is, to see that the others are why nothing is recorded."""


def _write_to_it(repo: Repo) -> None:
    (repo.path / NAME).write_bytes(b"TENSOR")


def _remove_it(repo: Repo) -> None:
    (repo.path / NAME).unlink()


def _stage_another(repo: Repo) -> None:
    blob = repo.git("hash-object", "-w", "--stdin", stdin=b"other")
    repo.git("update-index", "--cacheinfo", f"100644,{blob},{NAME}")


def _leave_a_conflict(repo: Repo) -> None:
    blob = repo.git("hash-object", "--stdin", stdin=b"tensor")
    repo.git("rm", "-q", "--cached", NAME)
    lines = "".join(f"100644 {blob} {stage}\t{NAME}\n" for stage in (1, 2, 3))
    repo.git("update-index", "--index-info", stdin=os.fsencode(lines))


def _split(repo: Repo) -> None:
    repo.git("update-index", "--split-index")


def _damage(repo: Repo) -> None:
    _index(repo).write_bytes(_index(repo).read_bytes()[:-20] + bytes(19) + b"1")


@pytest.mark.parametrize(
    "change",
    [
        *(_no_change, _write_to_it, _remove_it, _stage_another),
        *(_leave_a_conflict, _split, _damage),
    ],
)
def test_what_is_not_known_for_sure_is_left_to_git(repo, change):
    _fill(repo)
    of = _replace(repo)
    change(repo)
    before = _index(repo).read_bytes()
    assert record(_index(repo), {NAME: of}) == ({NAME} if change is _no_change else set())
    assert (_index(repo).read_bytes() == before) == (change is not _no_change)
    assert not _index(repo).with_name("index.lock").exists()


def test_an_index_that_git_is_writing_is_left_alone(repo):
    _fill(repo)
    of, lock = _replace(repo), _index(repo).with_name("index.lock")
    lock.write_bytes(b"git's")
    assert index_file.edit(_index(repo), {NAME: lambda _: of.status}, patience=0) == set()
    assert lock.read_bytes() == b"git's"


def test_an_index_that_another_command_writes_is_waited_for(repo):
    _fill(repo)
    of, lock = _replace(repo), _index(repo).with_name("index.lock")
    lock.write_bytes(b"git's")
    Timer(0.1, lock.unlink).start()
    assert record(_index(repo), {NAME: of}) == {NAME}


def test_a_full_disk_leaves_the_index_and_no_lock(repo, monkeypatch):
    _fill(repo)
    of, before = _replace(repo), _index(repo).read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("git_theta.git.index_file.os.utime", fail)
    assert record(_index(repo), {NAME: of}) == set()
    assert _index(repo).read_bytes() == before
    assert not _index(repo).with_name("index.lock").exists()


def test_git_still_sees_what_was_written_to_in_the_second_of_its_index(repo):
    """It reads again what may have changed since: an index of a later time would hide that."""
    _fill(repo)
    repo.git("config", "core.trustctime", "false")
    recent = repo.path / "recent"
    for content in (b"one", b"two"):  # of equal size, inode and time
        recent.write_bytes(content)
        os.utime(recent, (OLD + 9, OLD + 9))
        if content == b"one":
            repo.git("add", "recent")
            os.utime(_index(repo), (OLD + 9, OLD + 9))
    assert record(_index(repo), {NAME: _replace(repo)}) == {NAME}
    assert repo.git("diff-files", "--name-only", "recent") == "recent"


@pytest.mark.parametrize(("size", "recorded"), [(1 << 32, set()), ((1 << 32) + 1, {NAME})])
def test_a_size_that_git_versions_cut_differently_is_left_to_git(repo, size, recorded):
    _fill(repo)
    of = _replace(repo)
    os.truncate(of.file, size)
    assert record(_index(repo), {NAME: of._replace(status=of.file.lstat())}) == recorded


def _backdated(path: Path, since: int, content: bytes = b"content") -> os.stat_result | None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.utime(path, ns=(0, NOW))
        return backdate(file, since)


NOW = (OLD + 9) * 10**9 + 7


def test_a_file_that_got_its_name_is_known(tmp_path):
    before = _backdated(tmp_path / "temporary", NOW - 10**9)
    (tmp_path / "temporary").rename(tmp_path / "file")
    assert placed(tmp_path / "file", before) == (tmp_path / "file").lstat()


def test_its_time_is_in_a_second_that_is_over(tmp_path):
    """Else git would read it again, or take what is written to it at once for the same."""
    file = tmp_path / "file"
    assert _backdated(file, NOW - 8).st_mtime_ns == NOW - 8
    assert _backdated(file, NOW - 7) is None
    assert file.stat().st_mtime_ns == NOW


def test_a_write_right_after_it_got_its_name_is_noticed(tmp_path):
    before = _backdated(tmp_path / "file", NOW - 10**9)
    with (tmp_path / "file").open("r+b") as file:
        file.write(b"other")
    assert placed(tmp_path / "file", before) is None


def test_another_file_of_equal_size_and_time_is_not_taken_for_it(tmp_path):
    before = _backdated(tmp_path / "file", NOW - 10**9)
    _backdated(tmp_path / "other", NOW - 10**9, b"CONTENT")
    (tmp_path / "other").replace(tmp_path / "file")
    assert placed(tmp_path / "file", before) is None


def _checked_out(repo: Repo, age: int = 0, written: int = OLD * 10**9 + 5) -> Path:
    """A file that git has just written, in the second of its index or ``age`` seconds before."""
    (repo.path / NAME).parent.mkdir()
    (repo.path / NAME).write_bytes(b"tensor")
    os.utime(repo.path / NAME, ns=(0, written))
    repo.git("add", "dir")
    os.utime(_index(repo), (OLD + age, OLD + age))
    return repo.path / NAME


def test_git_need_not_read_a_file_of_the_same_second(repo):
    file = _checked_out(repo)
    assert settle(_index(repo), {NAME: (file, BEGAN)}) == {NAME}
    assert file.stat().st_mtime_ns == BEGAN
    assert _index(repo).stat().st_mtime == OLD
    assert repo.git("diff-files") == ""
    assert settle(_index(repo), {NAME: (file, BEGAN)}) == set()


def test_a_file_is_never_older_than_what_was_made_before_it(repo):
    """Else `make` takes what was made of the file before it for up to date."""
    file = _checked_out(repo)
    assert settle(_index(repo), {NAME: (file, OLD * 10**9)}) == set()
    assert file.stat().st_mtime_ns == OLD * 10**9 + 5


def test_a_file_on_a_system_that_knows_whole_seconds_is_left_for_git_to_read(repo):
    """What is written to it in the same second leaves no trace in its times."""
    file = _checked_out(repo, written=OLD * 10**9)
    assert settle(_index(repo), {NAME: (file, BEGAN)}) == set()
    assert file.stat().st_mtime_ns == OLD * 10**9


def test_a_file_that_git_need_not_read_keeps_its_time(repo, monkeypatch):
    file = _checked_out(repo, age=1)
    monkeypatch.setattr(index_file, "edit", None)  # which would lock the index
    assert settle(_index(repo), {NAME: (file, BEGAN), "gone": (repo.path / "gone", BEGAN)}) == set()
    assert file.stat().st_mtime_ns == OLD * 10**9 + 5


def test_no_lock_is_taken_that_git_was_told_to_do_without(repo, monkeypatch):
    """An editor that asks for the status in the background sets this, to be in nobody's way."""
    file = _checked_out(repo)
    monkeypatch.setenv("GIT_OPTIONAL_LOCKS", "0")
    assert settle(_index(repo), {NAME: (file, BEGAN)}) == set()
    monkeypatch.setenv("GIT_OPTIONAL_LOCKS", "1")
    assert settle(_index(repo), {NAME: (file, BEGAN)}) == {NAME}


def _rewrite(file: Path) -> None:
    """Write to it in the same second, which git does not tell from the time in its index."""
    file.write_bytes(b"TENSOR")
    os.utime(file, ns=(0, OLD * 10**9 + 6))


def _copy(file: Path) -> None:
    """Replace it by another one of the same time to the ns."""
    (file.parent / "copy").write_bytes(b"TENSOR")
    os.utime(file.parent / "copy", ns=(0, OLD * 10**9 + 5))
    (file.parent / "copy").replace(file)


def _link(file: Path) -> None:
    file.rename(file.parent / "elsewhere")
    file.symlink_to("elsewhere")


@pytest.mark.parametrize("change", [_rewrite, _copy, _link])
def test_a_file_that_may_have_changed_is_left_for_git_to_read(repo, change):
    file = _checked_out(repo)
    change(file)
    time = file.stat().st_mtime_ns
    assert settle(_index(repo), {NAME: (file, BEGAN)}) == set()
    assert file.stat().st_mtime_ns == time
    assert repo.git("diff-files", "--name-only", "-z") != ""


def test_a_file_that_is_open_to_write_is_left_for_git_to_read(repo):
    file = _checked_out(repo)
    with file.open("r+b"):
        assert settle(_index(repo), {NAME: (file, BEGAN)}) == set()
    assert settle(_index(repo), {NAME: (file, BEGAN)}) == {NAME}
