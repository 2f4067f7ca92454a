"""A shared store on file systems that have reflinks, and on another one than the clone's."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_theta.store import ObjectStore, SharedStore
from tests.support.volumes import MEGABYTES, extents, mounted

DATA = random.Random(0).randbytes(1 << 20)
SOMEBODY = 12345


@pytest.fixture(scope="module", params=sorted(MEGABYTES))
def volume(request, tmp_path_factory) -> Iterator[Path]:
    with mounted(request.param, tmp_path_factory.mktemp("volume")) as place:
        yield place


@pytest.fixture
def pool(volume: Path) -> Path:
    folder = volume / os.urandom(8).hex()
    folder.mkdir()
    return folder


def store(root: Path, pool: Path) -> ObjectStore:
    return ObjectStore(root, SharedStore(pool, root))


def shared(pool: Path, oid: str) -> Path:
    return pool / "objects" / oid[:2] / oid


def test_an_own_file_is_a_hard_link(pool):
    a, b = store(pool / "a", pool), store(pool / "b", pool)
    ref = a.write([DATA])
    assert b.take(ref.oid, ref.size)
    assert b.path(ref.oid).samefile(shared(pool, ref.oid))
    assert b.path(ref.oid).samefile(a.path(ref.oid))


def test_another_users_file_is_a_reflink(pool):
    """Whoever owns a file can change it: what is taken shares its blocks, and is the user's own."""
    a, b = store(pool / "a", pool), store(pool / "b", pool)
    ref = a.write([DATA])
    theirs = shared(pool, ref.oid)
    os.chown(theirs, SOMEBODY, -1)
    assert b.take(ref.oid, ref.size)
    own = b.path(ref.oid)
    status = own.lstat()
    assert stat.S_ISREG(status.st_mode)
    assert (status.st_uid, status.st_nlink) == (os.geteuid(), 1)
    assert stat.S_IMODE(status.st_mode) == 0o444
    assert not own.samefile(theirs)
    assert extents(own) == extents(theirs)
    assert all(is_shared for _, _, is_shared in extents(own))

    with theirs.open("r+b") as file:
        file.write(b"changed by its owner")
    assert own.read_bytes() == DATA
    assert b.is_sound(ref.oid, ref.size)


def test_a_reflink_does_not_need_what_it_was_made_of(pool):
    a, b = store(pool / "a", pool), store(pool / "b", pool)
    ref = a.write([DATA])
    os.chown(shared(pool, ref.oid), SOMEBODY, -1)
    assert b.take(ref.oid, ref.size)
    a.path(ref.oid).unlink()
    assert a.shared.collect(0) == {ref.oid: ref.size}
    assert b.path(ref.oid).read_bytes() == DATA


def test_a_damaged_file_is_no_reflink(pool):
    a, b = store(pool / "a", pool), store(pool / "b", pool)
    ref = a.write([DATA])
    theirs = shared(pool, ref.oid)
    theirs.chmod(0o644)
    with theirs.open("r+b") as file:
        file.write(b"?")
    os.chown(theirs, SOMEBODY, -1)
    assert not b.take(ref.oid, ref.size)
    assert [file.name for file in b.path(ref.oid).parent.iterdir()] == []


def test_on_another_file_system_it_is_read_in_place(pool, tmp_path):
    """The first to store an object copies it there; each clone has a link to the copy."""
    a, b = store(tmp_path / "a", pool), store(tmp_path / "b", pool)
    ref = a.write([DATA])
    theirs = shared(pool, ref.oid)
    assert theirs.lstat().st_dev != tmp_path.stat().st_dev
    assert b.take(ref.oid, ref.size)
    for each in (a, b):
        assert each.path(ref.oid).readlink() == theirs
        assert each.path(ref.oid).read_bytes() == DATA
    assert {file.name for file in (pool / "clones").glob("*/*")} == {ref.oid, "clone"}
    assert a.shared.collect(0) == {}
