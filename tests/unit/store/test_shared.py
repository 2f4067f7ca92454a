"""A shared store: each object once, no trust in others, nothing lost in any order of steps."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from git_theta.core.hashes import Ref
from git_theta.errors import CorruptObjectError
from git_theta.store import ObjectStore, SharedStore, shared
from git_theta.store.trash import Trash

DATA = b"some weights" * 100


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    folder = tmp_path / "pool"
    folder.mkdir()
    return folder


@pytest.fixture
def make(tmp_path: Path, pool: Path) -> Callable[[str], ObjectStore]:
    def store(name: str) -> ObjectStore:
        root = tmp_path / name / "theta"
        return ObjectStore(root, SharedStore(pool, root))

    return store


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another file system, or where the file is another user's (protected_hardlinks)."""
    monkeypatch.setattr(SharedStore, "_link", lambda *_: False)
    monkeypatch.setattr(SharedStore, "_clone_blocks", lambda *_: False)

    def copied(own: Path, target: Path, mode: int) -> None:
        target.write_bytes(own.read_bytes())
        target.chmod(mode)

    monkeypatch.setattr(shared, "link_or_copy", copied)


def ours(store: ObjectStore, oid: str) -> bytes:
    return store.path(oid).read_bytes()


def files(pool: Path) -> list[str]:
    return [file.name for file in (pool / "objects").glob("*/*")]


def test_an_object_is_one_file_in_every_clone(make, pool):
    a, b, c = make("a"), make("b"), make("c")
    ref = a.write([DATA])
    assert b.write([DATA]) == ref
    assert c.take(ref.oid, ref.size)
    inodes = {store.path(ref.oid).stat().st_ino for store in (a, b, c)}
    assert inodes == {(pool / "objects" / ref.oid[:2] / ref.oid).stat().st_ino}
    assert a.path(ref.oid).stat().st_nlink == 4
    assert not c.take("0" * 64, 1)


def test_clones_do_not_need_the_folder(make, pool):
    a = make("a")
    ref = a.write([DATA])
    for file in (pool / "objects").rglob("*"):
        if file.is_file():
            file.unlink()
    assert ours(a, ref.oid) == DATA


def test_a_damaged_object_is_not_taken_and_is_replaced(make, pool):
    a, b = make("a"), make("b")
    ref = a.write([DATA])
    file = pool / "objects" / ref.oid[:2] / ref.oid
    file.unlink()
    file.write_bytes(DATA[:-1] + b"?")
    assert not b.take(ref.oid, ref.size)
    b.write([DATA])
    assert ours(b, ref.oid) == DATA == file.read_bytes()


@pytest.mark.parametrize("planted", ["pipe", "link", "folder"])
def test_what_is_no_file_is_not_taken(make, pool, tmp_path, planted):
    """Somebody else may write there too: a pipe would be waited for."""
    a, b = make("a"), make("b")
    ref = a.write([DATA])
    file = pool / "objects" / ref.oid[:2] / ref.oid
    file.unlink()
    own = tmp_path / "own"
    own.write_bytes(DATA)
    {"pipe": os.mkfifo, "link": lambda at: at.symlink_to(own), "folder": Path.mkdir}[planted](file)
    assert not b.take(ref.oid, ref.size)
    b.write([DATA])
    assert ours(b, ref.oid) == DATA


def test_collected_is_what_no_clone_has(make, pool):
    a, b = make("a"), make("b")
    ref = a.write([DATA])
    b.write([DATA])
    assert a.shared.collect(0) == {}
    a.path(ref.oid).unlink()
    assert a.shared.collect(0) == {}
    b.path(ref.oid).unlink()
    assert a.shared.collect(60) == {}
    assert a.shared.collect(0, dry_run=True) == {ref.oid: ref.size}
    assert files(pool) == [ref.oid]
    assert a.shared.collect(0) == {ref.oid: ref.size}
    assert files(pool) == []


@pytest.mark.usefixtures("in_place")
class TestInPlace:
    def test_it_is_a_link_that_says_so_first(self, make, pool):
        a, b = make("a"), make("b")
        ref = a.write([DATA])
        b.write([DATA])
        assert a.path(ref.oid).is_symlink()
        assert ours(b, ref.oid) == DATA
        assert b.is_sound(ref.oid, ref.size)
        for store in (a, b):
            assert store.shared.collect(0) == {}
            store.path(ref.oid).unlink()
            store.release([ref.oid])
        assert a.shared.collect(0) == {ref.oid: ref.size}

    def test_a_copy_of_a_clone_says_so_for_itself(self, make, pool, tmp_path):
        a = make("a")
        ref = a.write([DATA])
        (tmp_path / "a").rename(tmp_path / "moved")
        moved = make("moved")
        other = moved.write([b"more"])
        (moved.root / "shared-store").unlink()
        for store, oids in ((moved, [ref.oid, other.oid]), (make("a"), [ref.oid])):
            store.release(oids)
        assert moved.shared.collect(0) == {}
        assert ours(moved, ref.oid) == DATA

    def test_another_processes_verification_does_not_count(self, make):
        a = make("a")
        ref = a.write([DATA])
        stamps = a.stamps([ref.oid])
        file = a.path(ref.oid).resolve()
        before = file.stat()
        file.chmod(0o644)
        file.write_bytes(DATA[:-1] + b"?")  # by its owner, who can make it look untouched
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        again = make("a")
        again.trust(stamps)
        assert not again.is_sound(ref.oid, ref.size)
        with pytest.raises(CorruptObjectError):
            again.verify(ref.oid)

    @pytest.mark.parametrize("taking_first", [True, False])
    def test_one_stopped_at_each_of_its_steps(self, make, pool, steps, taking_first):
        """Whoever takes an object and whoever collects it: what was taken is there."""
        outcomes = set()
        for step in range(1, 100):
            owner, taker = make("owner"), make(f"taker{step}")
            ref = owner.write([DATA])
            owner.path(ref.oid).unlink()
            owner.release([ref.oid])
            taken = []
            take = partial(_take, taker, ref, taken)
            gc = partial(owner.shared.collect, 0)
            first, second = (take, gc) if taking_first else (gc, take)
            if not steps.stopped(step, first, second):
                break
            outcomes.update(taken)
            assert taker.has(ref.oid) == taken[0], step
            assert not taken[0] or ours(taker, ref.oid) == DATA
            taker.release([ref.oid])
            owner.shared.collect(0)
            assert files(pool) == [], step
            shutil.rmtree(pool / "clones")  # each one is a step more of the next collection
        assert step > 8
        assert outcomes == {True, False}


def _take(store: ObjectStore, ref: Ref, taken: list[bool]) -> None:
    taken.append(store.take(ref.oid, ref.size))


class Steps:
    """Stops before and after each call of some functions."""

    def __init__(self) -> None:
        self._count = self._at = 0
        self._meanwhile: Callable[[], object] = lambda: None

    def stopped(self, at: int, first: Callable[[], object], second: Callable[[], object]) -> bool:
        """Run ``first``, and ``second`` at step ``at`` of it; false where it has fewer."""
        self._count, self._at, self._meanwhile = 0, at, second
        first()
        self._at = 0
        return self._count >= at

    def step(self) -> None:
        self._count += 1
        if self._count == self._at:
            self._meanwhile()

    def wrap(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            self.step()
            result = real(*args)
            self.step()
            return result

        return call


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    found = Steps()
    names = {
        Trash: ("discard", "restore", "destroy", "stat"),
        shared: ("check", "sync_path"),
        SharedStore: ("_claimed",),
        Path: ("exists",),
    }
    for owner, functions in names.items():
        for name in functions:
            monkeypatch.setattr(owner, name, found.wrap(getattr(owner, name)))
    return found


@pytest.mark.parametrize(("mode", "umask"), [(0o3770, 0o077), (0o1777, 0o077), (0o755, 0o022)])
def test_the_modes_are_those_of_the_folder(make, pool, mode, umask):
    pool.chmod(mode)
    before = os.umask(umask)
    try:
        store = make("a")
        ref = store.write([DATA])
    finally:
        os.umask(before)
    file = pool / "objects" / ref.oid[:2] / ref.oid
    assert stat.S_IMODE(file.stat().st_mode) == 0o444 & mode
    for folder in (file.parent, file.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_another_users_file_is_no_hard_link(make, pool):
    a, b = make("a"), make("b")
    ref = a.write([DATA])
    os.chown(pool / "objects" / ref.oid[:2] / ref.oid, 12345, -1)
    assert b.take(ref.oid, ref.size)
    assert b.path(ref.oid).is_symlink() or b.path(ref.oid).stat().st_uid == 0
    assert ours(b, ref.oid) == DATA


def test_a_folder_that_is_not_there_is_said_once(make, pool, caplog):
    pool.rmdir()
    store = make("a")
    refs = [store.write([DATA]), store.write([DATA * 2])]
    assert all(store.has(ref.oid) for ref in refs)
    (record,) = caplog.records
    assert record.message.startswith("theta.sharedStore: ")
    _, _, command = record.message.partition("to begin one: ")
    subprocess.run(shlex.split(command), check=True)
    assert pool.is_dir()
