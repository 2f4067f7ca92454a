"""Local objects: whole or absent, whatever happens."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from git_theta.core.hashes import Ref
from git_theta.errors import CorruptObjectError, MissingObjectError, StoreError
from git_theta.store import ObjectStore
from git_theta.store import files as object_files
from git_theta.store.activity import oldest
from git_theta.store.soundness import check
from tests.support.failures import (
    kill_when,
    largest_file,
    on_tmpfs,
    public_folder,
    read_only,
    run_together,
    unprivileged,
)

ABSENT = "0" * 64


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "theta")


def files(store: ObjectStore) -> list[Path]:
    """Every file below the store's root, but for that which shows that this process is at work."""
    found = [path for path in store.root.rglob("*") if path.is_file()]
    return [path for path in found if path.parent != store.root / "active"]


class TestWrite:
    def test_name_place_and_mode(self, store: ObjectStore) -> None:
        ref = store.write([b"abc", b"def"])
        oid = hashlib.sha256(b"abcdef").hexdigest()
        assert ref == Ref(oid, 6, 0, 6)
        path = store.root / "objects" / oid[:2] / oid
        assert store.path(oid) == path
        assert path.read_bytes() == b"abcdef"
        assert not path.stat().st_mode & 0o222
        assert files(store) == [path]

    def test_takes_any_buffer_and_any_iterable(self, store: ObjectStore) -> None:
        wide = memoryview(bytes(range(16))).cast("I")
        ref = store.write(iter([bytearray(b"x"), wide]))
        assert store.read(ref) == b"x" + bytes(range(16))

    def test_an_object_is_written_once(self, store: ObjectStore) -> None:
        path = store.path(store.write([b"abc"]).oid)
        inode = path.stat().st_ino
        store.write([b"a", b"bc"])
        assert path.stat().st_ino == inode

    def test_an_object_used_again_is_young_again(self, store: ObjectStore) -> None:
        path = store.path(store.write([b"abc"]).oid)
        os.utime(path, (1, 1))
        ObjectStore(store.root).write([b"abc"])  # another command
        assert time.time() - path.stat().st_mtime < 100

    def test_a_damaged_object_is_replaced(self, store: ObjectStore) -> None:
        ref = store.write([b"abcdef"])
        damage(store, ref.oid, b"abcdeg")
        assert ObjectStore(store.root).write([b"abcdef"]) == ref
        store.verify(ref.oid)

    def test_a_cut_off_object_is_replaced(self, store: ObjectStore) -> None:
        ref = store.write([b"abcdef"])
        cut_off(store, ref.oid, 3)
        assert store.write([b"abcdef"]) == ref
        store.verify(ref.oid)

    @pytest.mark.parametrize("buffers", [[], [b"", b""]])
    def test_an_empty_object_is_a_defect(self, store: ObjectStore, buffers: list[bytes]) -> None:
        with pytest.raises(ValueError, match="empty"):
            store.write(buffers)

    def test_removes_what_killed_processes_left(self, store: ObjectStore) -> None:
        scratch = store.root / "tmp"
        scratch.mkdir(parents=True)
        old, young = scratch / ".tmp-1", scratch / ".tmp-2"
        for file in (old, young):
            file.write_bytes(b"half")
        os.utime(old, (time.time() - 90_000, time.time() - 90_000))
        store.write([b"abc"])
        assert list(scratch.iterdir()) == [young]

    def test_the_folder_of_folders_is_synced_for_new_ones_alone(
        self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[Path] = []
        monkeypatch.setattr(object_files, "sync_path", synced.append)
        target = store.path(store.write([b"0"]).oid)
        store.sync()
        assert synced == [target.parent, target.parent.parent]
        for _ in range(2):
            synced.clear()
            target.unlink()
            store.write([b"0"])
            store.sync()
            assert synced == [target.parent]
        shutil.rmtree(target.parent)
        synced.clear()
        store.write([b"0"])
        store.sync()
        assert synced == [target.parent, target.parent.parent]

    def test_one_written_behind_is_whole_after_sync(self, store: ObjectStore) -> None:
        refs = [store.write_behind([bytes([number]) * 9]) for number in range(40)]
        store.sync()
        assert [store.read(ref) for ref in refs] == [bytes([number]) * 9 for number in range(40)]
        assert list((store.root / "tmp").iterdir()) == []
        assert store.stamps([ref.oid for ref in refs]).keys() == {ref.oid for ref in refs}

    def test_one_written_behind_has_no_name_before_it_is_synced(
        self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        may_end, synced = threading.Event(), list[int]()
        monkeypatch.setattr(os, "fsync", lambda file: (may_end.wait(9), synced.append(file)))
        ref = store.write_behind([b"abc"])
        assert not store.has(ref.oid)
        may_end.set()
        store.sync()
        assert store.has(ref.oid)
        assert len(synced) == 3  # the file, its folder, the folder of folders

    def test_those_that_wait_for_the_disk_are_limited(
        self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        may_end, most = threading.Event(), 0
        real = os.fsync
        monkeypatch.setattr(os, "fsync", lambda file: (may_end.wait(9), real(file)))

        def write_all() -> None:
            for number in range(200):
                store.write_behind([number.to_bytes(8, "big")])

        writing = threading.Thread(target=write_all)
        writing.start()
        for _ in range(20):
            most = max(most, len(list((store.root / "tmp").glob("*"))))
            time.sleep(0.01)
        may_end.set()
        writing.join()
        store.sync()
        assert 0 < most <= 64
        assert len(list(store.oids())) == 200

    def test_sync_tells_of_one_that_could_not_be_written_behind(
        self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good = store.write_behind([b"good"])
        store.sync()
        monkeypatch.setattr(os, "fsync", Mock(side_effect=OSError(errno.EIO, "I/O error")))
        lost = store.write_behind([b"lost"])
        with pytest.raises(StoreError, match="I/O error"):
            store.sync()
        assert store.has(good.oid)
        assert not store.has(lost.oid)
        assert list((store.root / "tmp").iterdir()) == []

    def test_sync_may_follow_anything(self, store: ObjectStore) -> None:
        store.sync()
        ref = store.write([b"abc"])
        store.path(ref.oid).unlink()
        store.path(ref.oid).parent.rmdir()
        store.sync()
        store.sync()
        assert not store.has(ref.oid)


def cut_off(store: ObjectStore, oid: str, size: int) -> None:
    """Damage an object: keep its first ``size`` bytes."""
    path = store.path(oid)
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:size])


def damage(store: ObjectStore, oid: str, data: bytes) -> None:
    """Write other bytes into an object's file, as a stray program does."""
    path = store.path(oid)
    path.chmod(0o644)
    path.write_bytes(data)


class TestRead:
    @given(data=st.binary(min_size=1, max_size=200), cuts=st.tuples(st.integers(0), st.integers(0)))
    def test_any_range(
        self, tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: tuple[int, int]
    ) -> None:
        store = ObjectStore(tmp_path_factory.getbasetemp() / "ranges")
        whole = store.write([data])
        start, end = sorted(cut % (len(data) + 1) for cut in cuts)
        ref = Ref(whole.oid, whole.size, start, end - start)
        assert store.read(ref) == data[start:end]

    def test_missing(self, store: ObjectStore) -> None:
        with pytest.raises(MissingObjectError) as caught:
            store.read(Ref(ABSENT, 10, 0, 10))
        assert caught.value.path == str(store.path(ABSENT))
        assert caught.value.hint == "git theta fetch"

    @pytest.mark.parametrize("size", [0, 3, 5])
    def test_wrong_size(self, store: ObjectStore, size: int) -> None:
        ref = store.write([b"abcdef"])
        cut_off(store, ref.oid, size)
        with pytest.raises(CorruptObjectError, match=f"{size} bytes instead of 6") as caught:
            store.read(ref)
        assert caught.value.path == str(store.path(ref.oid))
        assert "fsck" in (caught.value.hint or "")

    def test_a_ref_beyond_its_object(self, store: ObjectStore) -> None:
        ref = store.write([b"abcdef"])
        with pytest.raises(CorruptObjectError):
            store.read(Ref(ref.oid, 6, 4, 4))

    def test_unreadable(self, store: ObjectStore) -> None:
        ref = store.write([b"abcdef"])
        store.path(ref.oid).chmod(0)
        with unprivileged(), pytest.raises(StoreError, match="permission denied"):
            store.read(ref)


class TestVerify:
    def test_a_sound_object(self, store: ObjectStore) -> None:
        store.verify(store.write([b"abcdef"]).oid)

    def test_a_flipped_bit(self, store: ObjectStore) -> None:
        ref = store.write([b"abcdef"])
        path = store.path(ref.oid)
        path.chmod(0o644)
        path.write_bytes(b"abcdeg")
        with pytest.raises(CorruptObjectError, match=sha256(b"abcdeg").hexdigest()[:12]):
            store.verify(ref.oid)

    def test_missing(self, store: ObjectStore) -> None:
        with pytest.raises(MissingObjectError):
            store.verify(ABSENT)

    def test_unreadable(self, store: ObjectStore) -> None:
        ref = store.write([b"abcdef"])
        store.path(ref.oid).chmod(0)
        with unprivileged(), pytest.raises(StoreError):
            store.verify(ref.oid)


class TestSound:
    """What was hashed once is not hashed again, unless its file was changed."""

    def test_what_was_written_here_is(self, store: ObjectStore) -> None:
        ref = store.write([b"abcdef"])
        assert store.is_sound(ref.oid, 6)
        assert not store.is_sound(ref.oid, 7)
        assert not store.is_sound(ABSENT, 6)

    def test_a_change_is_noticed(self, store: ObjectStore) -> None:
        ref = store.write([b"abcdef"])
        damage(store, ref.oid, b"abcdeg")
        assert not store.is_sound(ref.oid, 6)
        damage(store, ref.oid, b"abcdef")
        assert store.is_sound(ref.oid, 6)

    def test_what_another_command_verified_is_not_hashed_again(self, store: ObjectStore) -> None:
        ref = store.write([b"abcdef"])
        path, stamps = store.path(ref.oid), store.stamps([ref.oid])
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        damage(store, ref.oid, b"abcdeg")
        os.utime(path, ns=times)  # a change that leaves no trace shows whether it is read
        later = ObjectStore(store.root)
        later.trust(stamps)
        assert later.is_sound(ref.oid, 6)
        assert not ObjectStore(store.root).is_sound(ref.oid, 6)
        with pytest.raises(CorruptObjectError):
            later.verify(ref.oid)
        assert not later.is_sound(ref.oid, 6), "verify knows better"

    def test_use_keeps_what_is_known(self, store: ObjectStore) -> None:
        ref = store.write([b"abcdef"])
        os.utime(store.path(ref.oid), (1, 1))
        store.verify(ref.oid)
        later = ObjectStore(store.root)
        later.trust(store.stamps([ref.oid]))
        assert later.use(ref.oid, 6)
        assert later.stamps([ref.oid]) != store.stamps([ref.oid])
        status = store.path(ref.oid).stat()
        assert later.stamps([ref.oid])[ref.oid].mtime == status.st_mtime_ns > 1

    def test_threads_hash_it_once(self, store: ObjectStore, monkeypatch) -> None:
        ref = store.write([bytes(1 << 20)])
        hashed = []

        def counting(file: Path, oid: str, size: int | None) -> os.stat_result:
            hashed.append(oid)
            return check(file, oid, size)

        monkeypatch.setattr("git_theta.store.objects.check", counting)
        later = ObjectStore(store.root)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(lambda _: later.use(ref.oid, 1 << 20), range(64)))
        assert later.use(ref.oid, 1 << 20)
        assert hashed == [ref.oid]

    def test_unreadable(self, store: ObjectStore) -> None:
        ref = store.write([b"abcdef"])
        store.path(ref.oid).chmod(0)
        later = ObjectStore(store.root)
        with unprivileged():
            assert not later.is_sound(ref.oid, 6)
            assert not later.use(ref.oid, 6)


class TestTrash:
    """A collection and a command at the same time: each order of their steps."""

    @pytest.fixture
    def oid(self, store: ObjectStore) -> str:
        oid = store.write([b"abcdef"]).oid
        store.close()
        os.utime(store.path(oid), (1, 1))
        return oid

    def test_out_of_sight_and_then_gone(self, store: ObjectStore, oid: str) -> None:
        store.trash.discard(oid)
        assert list(store.oids()) == []
        assert list(store.trash.oids()) == [oid]
        assert store.trash.stat(oid).st_mtime == 1
        store.trash.destroy(oid)
        store.trash.destroy(oid)
        assert list(store.trash.oids()) == []
        assert store.trash.stat(oid) is None
        assert not store.trash.restore(oid)

    @pytest.mark.parametrize(
        "look",
        [
            lambda store, oid: store.has(oid),
            lambda store, oid: store.read(Ref(oid, 6, 0, 6)) == b"abcdef",
            lambda store, oid: store.verify(oid) is None,
            lambda store, oid: store.use(oid, 6),
            lambda store, oid: store.touch([oid]) is None,
            lambda store, oid: store.write([b"abcdef"]).oid == oid,
        ],
        ids=["has", "read", "verify", "use", "touch", "write"],
    )
    def test_who_looks_for_an_object_gets_it_back(self, store, oid, look) -> None:
        store.trash.discard(oid)
        assert look(ObjectStore(store.root), oid)
        store.trash.destroy(oid)
        store.verify(oid)
        assert list(store.trash.oids()) == []

    def test_used_before_it_is_discarded(self, store: ObjectStore, oid: str) -> None:
        seen = store.trash.stat(oid).st_mtime_ns
        ObjectStore(store.root).touch([oid])
        store.trash.discard(oid)
        assert store.trash.stat(oid).st_mtime_ns != seen, "the collection sees that it was used"

    def test_destroyed_before_it_is_used(self, store: ObjectStore, oid: str) -> None:
        store.trash.discard(oid)
        store.trash.destroy(oid)
        assert not store.use(oid, 6)
        with pytest.raises(MissingObjectError):
            store.touch([oid])

    def test_two_collections(self, store: ObjectStore, oid: str) -> None:
        store.trash.discard(oid)
        store.trash.discard(oid)
        assert list(store.trash.oids()) == [oid]


class TestActivity:
    """Processes at work are known, however they end."""

    def test_from_the_first_object_to_the_end(self, store: ObjectStore) -> None:
        assert oldest(store.root) is None
        ref = store.write([b"abc"])
        began = oldest(store.root)
        assert began is not None
        assert began <= store.path(ref.oid).stat().st_mtime_ns
        store.close()
        assert oldest(store.root) is None

    def test_use_counts(self, store: ObjectStore) -> None:
        ref = store.write([b"abc"])
        store.close()
        assert store.use(ref.oid, 3)
        assert oldest(store.root) is not None

    def test_looking_does_not(self, store: ObjectStore) -> None:
        ref = store.write([b"abc"])
        store.close()
        store.has(ref.oid)
        store.read(ref)
        store.verify(ref.oid)
        assert oldest(store.root) is None

    def test_the_oldest(self, store: ObjectStore) -> None:
        store.write([b"abc"])
        first = oldest(store.root)
        other = ObjectStore(store.root)
        other.write([b"def"])
        assert oldest(store.root) == first
        store.close()
        assert (oldest(store.root) or 0) >= (first or 0)
        other.close()
        assert oldest(store.root) is None

    def test_killed(self, store: ObjectStore) -> None:
        shown = store.root / "active"
        kill_when(_WRITE_BIG_ONES, lambda: shown.exists() and any(shown.glob("[!.]*")), store.root)
        assert len(list(shown.iterdir())) == 1
        assert oldest(store.root) is None
        assert list(shown.iterdir()) == []


class TestAdopt:
    @pytest.fixture
    def download(self, tmp_path: Path) -> Path:
        file = tmp_path / "download"
        file.write_bytes(b"content")
        return file

    def test_links_and_protects(self, store: ObjectStore, download: Path) -> None:
        oid = sha256(b"content").hexdigest()
        store.adopt(oid, 7, download)
        assert store.path(oid).samefile(download)
        assert not store.path(oid).stat().st_mode & 0o222
        store.sync()
        download.unlink()
        assert store.read(Ref(oid, 7, 0, 7)) == b"content"

    def test_replaces_a_damaged_object(self, store: ObjectStore, download: Path) -> None:
        ref = store.write([b"content"])
        path = store.path(ref.oid)
        path.chmod(0o644)
        path.write_bytes(b"damaged")
        store.adopt(ref.oid, 7, download)
        store.verify(ref.oid)

    def test_twice(self, store: ObjectStore, download: Path) -> None:
        oid = sha256(b"content").hexdigest()
        store.adopt(oid, 7, download)
        store.adopt(oid, 7, download)
        store.verify(oid)

    def test_wrong_hash(self, store: ObjectStore, download: Path) -> None:
        with pytest.raises(CorruptObjectError, match="hash") as caught:
            store.adopt(ABSENT, 7, download)
        assert caught.value.path == str(download)
        assert not list(store.oids())

    def test_wrong_size(self, store: ObjectStore, download: Path) -> None:
        with pytest.raises(CorruptObjectError, match="7 bytes instead of 8"):
            store.adopt(sha256(b"content").hexdigest(), 8, download)
        assert not list(store.oids())

    def test_gone(self, store: ObjectStore, tmp_path: Path) -> None:
        with pytest.raises(MissingObjectError):
            store.adopt(ABSENT, 7, tmp_path / "nothing")

    def test_unreadable(self, store: ObjectStore, download: Path) -> None:
        download.chmod(0)
        with unprivileged(), pytest.raises(StoreError):
            store.adopt(sha256(b"content").hexdigest(), 7, download)


class TestInventory:
    def test_empty(self, store: ObjectStore) -> None:
        assert list(store.oids()) == []
        assert not store.has(ABSENT)
        assert store.size(ABSENT) is None
        assert not store.root.exists(), "looking creates nothing"

    def test_lists_objects_only(self, store: ObjectStore) -> None:
        oids = sorted(store.write([bytes([n])]).oid for n in range(50))
        (store.root / "objects" / "note").write_text("not an object")
        (store.path(oids[0]).parent / ".tmp-1").write_text("half an object")
        (store.path(oids[0]).parent / oids[1]).write_text("in a folder that is not its own")
        assert list(store.oids()) == oids
        assert store.size(oids[0]) == 1

    def test_a_store_that_may_not_be_looked_into(self, store: ObjectStore) -> None:
        oid = store.write([b"abc"]).oid
        store.root.chmod(0)
        with unprivileged():
            for look in (lambda: store.has(oid), lambda: list(store.oids())):
                with pytest.raises(StoreError, match="permission denied"):
                    look()

    def test_touch(self, store: ObjectStore) -> None:
        oids = [store.write([bytes([n])]).oid for n in range(3)]
        for oid in oids:
            os.utime(store.path(oid), (1, 1))
        ObjectStore(store.root).touch(oids[:2])
        young = [time.time() - store.path(oid).stat().st_mtime < 100 for oid in oids]
        assert young == [True, True, False]

    def test_touch_what_is_gone(self, store: ObjectStore) -> None:
        with pytest.raises(MissingObjectError):
            store.touch([ABSENT])

    def test_touch_what_is_somebody_elses(self) -> None:
        with public_folder() as folder:
            store = ObjectStore(folder)
            oid = store.write([b"abc"]).oid
            with unprivileged():
                store.touch([oid])

    def test_touch_where_that_may_not_be(self, tmp_path: Path) -> None:
        printed = on_tmpfs("size=4m", _FRESHEN_READ_ONLY, tmp_path / "disk")
        assert printed == "fine\n"

    def test_quarantine(self, store: ObjectStore) -> None:
        oid = store.write([b"abc"]).oid
        place = store.quarantine(oid)
        assert place == store.root / "bad" / oid
        assert place.read_bytes() == b"abc"
        assert not store.has(oid)
        with pytest.raises(MissingObjectError):
            store.quarantine(oid)

    def test_quarantine_where_that_may_not_be(self, store: ObjectStore) -> None:
        oid = store.write([b"abc"]).oid
        with read_only(store.root), unprivileged(), pytest.raises(StoreError):
            store.quarantine(oid)
        assert store.has(oid)


_WRITE_FULL_DISK = """
import sys
from pathlib import Path
from git_theta.errors import StoreError
from git_theta.store import ObjectStore
from git_theta.store import files as object_files
store = ObjectStore(Path(sys.argv[1]) / "theta")
kept = store.write([bytes(500_000)])
try:
    store.write([bytes(1), bytes(2_000_000)])
except StoreError as error:
    print(error)
store.verify(kept.oid)
print(list(store.oids()) == [kept.oid], list((store.root / "tmp").iterdir()))
"""

_WRITE_READ_ONLY = """
import subprocess, sys
from pathlib import Path
from git_theta.errors import StoreError
from git_theta.store import ObjectStore
from git_theta.store import files as object_files
store = ObjectStore(Path(sys.argv[1]) / "theta")
kept = store.write([b"content"])
store.close()
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
assert store.read(kept) == b"content"
assert store.write([b"content"]) == kept
for work in (lambda: store.write([b"new"]), lambda: store.trash.discard(kept.oid)):
    try:
        work()
    except StoreError as error:
        print(error)
"""

_FRESHEN_READ_ONLY = """
import subprocess, sys
from pathlib import Path
from git_theta.errors import StoreError
from git_theta.store import ObjectStore
from git_theta.store import files as object_files
store = ObjectStore(Path(sys.argv[1]) / "theta")
kept = store.write([b"content"])
store.close()
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
ObjectStore(store.root).touch([kept.oid])  # nobody can collect it
print("fine")
"""

_WRITE_BIG_ONES = """
import os, sys
from pathlib import Path
from git_theta.store import ObjectStore
from git_theta.store import files as object_files
store = ObjectStore(Path(sys.argv[1]))
while True:
    store.write([os.urandom(8), bytes(64 << 20)])
"""

_WRITE_THE_SAME = """
import sys
from pathlib import Path
from git_theta.store import ObjectStore
from git_theta.store import files as object_files
store = ObjectStore(Path(sys.argv[1]))
print("ready", flush=True)
input()
for number in range(100):
    print(store.write([number.to_bytes(4, "little"), bytes(50_000)]).oid)
store.sync()
"""


class TestFailures:
    def test_a_write_that_fails_half_way(self, store: ObjectStore) -> None:
        kept = store.write([b"content"])
        with largest_file(1 << 16), pytest.raises(StoreError, match="larger than is allowed"):
            store.write([bytes(1 << 20)])
        assert files(store) == [store.path(kept.oid)]

    def test_full_disk(self, tmp_path: Path) -> None:
        printed = on_tmpfs("size=1m", _WRITE_FULL_DISK, tmp_path / "disk")
        assert "no space left" in printed
        assert "hint: free some space" in printed
        assert printed.endswith("True []\n")

    def test_read_only_file_system(self, tmp_path: Path) -> None:
        printed = on_tmpfs("size=4m", _WRITE_READ_ONLY, tmp_path / "disk")
        assert printed.count("read-only") == 2

    def test_read_only_repository(self) -> None:
        with public_folder() as folder:
            store = ObjectStore(folder)
            kept = store.write([b"content"])
            with read_only(folder), unprivileged():
                assert store.read(kept) == b"content"
                store.verify(kept.oid)
                with pytest.raises(StoreError, match="permission denied"):
                    store.write([b"new"])
                with pytest.raises(StoreError):
                    store.trash.discard(kept.oid)
            assert files(store) == [store.path(kept.oid)]

    def test_killed_in_the_middle_of_a_write(self, store: ObjectStore) -> None:
        scratch = store.root / "tmp"

        def size_of(file: Path) -> int:
            try:
                return file.stat().st_size
            except FileNotFoundError:
                return 0  # it was moved to its place meanwhile

        def half_written() -> bool:
            sizes = map(size_of, scratch.glob(".tmp-*"))
            return any(0 < size < 64 << 20 for size in sizes) and any(store.oids())

        for _ in range(3):
            kill_when(_WRITE_BIG_ONES, half_written, store.root)
            for oid in store.oids():
                store.verify(oid)
                store.path(oid).unlink()

    def test_processes_that_write_the_same_objects(self, store: ObjectStore) -> None:
        printed = run_together(_WRITE_THE_SAME, [[store.root]] * 3)
        assert len(set(printed)) == 1
        assert sorted(printed[0].split()) == list(store.oids())
        for oid in store.oids():
            store.verify(oid)
        assert not list((store.root / "tmp").iterdir())
