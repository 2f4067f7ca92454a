"""Small objects are durable by the journal before their files are; see decision 0042."""

from __future__ import annotations

import errno
import os
from hashlib import sha256
from pathlib import Path

import pytest

from git_theta.core.hashes import Ref
from git_theta.errors import StoreError
from git_theta.store import ObjectStore, SharedStore, journal
from git_theta.store import files as object_files
from tests.support.failures import kill_when

NUMBERS = range(20)


def _content(number: int) -> bytes:
    return b"%d " % number * 500


def _write(store: ObjectStore, numbers: range = NUMBERS) -> list[Ref]:
    """Write small objects as a filter does, each durable before the next."""
    refs = []
    for number in numbers:
        refs.append(store.write([_content(number)]))
        store.sync()
    return refs


def _journals(root: Path) -> list[Path]:
    folder = root / "journal"
    return sorted(folder.iterdir()) if folder.exists() else []


class _Disk:
    """Counts what is synced, and knows which bytes and names a power cut would leave."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.synced: set[int] = set()
        self.names: set[Path] = set()
        self.calls = 0
        real = os.fsync

        def fsync(file: int) -> None:
            self.calls += 1
            self.synced.add(os.fstat(file).st_ino)
            real(file)

        patch.setattr(os, "fsync", fsync)

    def cut_power(self, root: Path, objects: list[Path]) -> list[Path]:
        """Take away the bytes of the objects that were never synced; return those."""
        lost = [file for file in objects if file.stat().st_ino not in self.synced]
        for file in lost:
            file.chmod(0o644)
            os.truncate(file, 0)
        return lost


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "theta"


def _leave(store: ObjectStore) -> Path:
    """Let a store go as a killed process does; return its journal."""
    (left,) = _journals(store.root)
    store._journal._file.close()  # the lock dies with the process
    return left


class TestDurability:
    def test_what_a_power_cut_took_comes_back(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = _Disk(monkeypatch)
        store = ObjectStore(root)
        refs = _write(store)
        left = _leave(store)
        lost = disk.cut_power(root, [store.path(ref.oid) for ref in refs])
        assert len(lost) == len(NUMBERS) - journal._FEW
        lost[0].unlink()  # of one its name
        after = ObjectStore(root)
        assert not left.exists()
        assert [bytes(after.read(ref)) for ref in refs] == [_content(n) for n in NUMBERS]

    def test_bytes_are_durable_before_a_file_has_the_object_s_name(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another process may use it at once, and hand git a manifest."""
        steps: list[str] = []
        replace, sync = Path.replace, journal.sync_data
        monkeypatch.setattr(journal, "sync_data", lambda file: (sync(file), steps.append("sync")))
        monkeypatch.setattr(
            Path, "replace", lambda self, to: (replace(self, to), steps.append(to.parent.name))[0]
        )
        store = ObjectStore(root)
        _write(store, range(journal._FEW + 1))
        steps.clear()
        (ref,) = _write(store, range(99, 100))
        assert steps == ["sync", ref.oid[:2]]

    def test_one_sync_of_data_for_each(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = ObjectStore(root)
        _write(store, range(journal._FEW + 1))
        disk, data = _Disk(monkeypatch), list[object]()
        monkeypatch.setattr(journal, "sync_data", data.append)
        _write(store, range(50, 60))
        assert (disk.calls, len(data)) == (0, 10)

    def test_all_files_and_names_are_synced_at_the_end(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = _Disk(monkeypatch)
        store = ObjectStore(root)
        refs = _write(store)
        store.close()
        files = [store.path(ref.oid) for ref in refs]
        wanted = {*files, *(file.parent for file in files), root / "objects"}
        assert {path.stat().st_ino for path in wanted} <= disk.synced
        assert _journals(root) == []

    def test_a_full_one_is_begun_again_when_all_files_are_synced(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(journal, "_SIZE", 6000)
        disk = _Disk(monkeypatch)
        store = ObjectStore(root)
        refs = _write(store)
        _leave(store)
        lost = disk.cut_power(root, [store.path(ref.oid) for ref in refs])
        assert 0 < len(lost) < 6
        after = ObjectStore(root)
        assert [bytes(after.read(ref)) for ref in refs] == [_content(n) for n in NUMBERS]

    def test_killed(self, root: Path) -> None:
        kill_when(_WRITE_SMALL_ONES, lambda: len(list(root.glob("objects/*/*"))) > 30, root)
        assert len(_journals(root)) == 1
        store = ObjectStore(root)
        assert _journals(root) == []
        for oid in store.oids():
            store.verify(oid)


class TestRecovery:
    def test_a_torn_record_ends_it(self, root: Path) -> None:
        store = ObjectStore(root)
        refs = _write(store)
        left = _leave(store)
        content = left.read_bytes()
        torn = content.index(_content(15)) + 700
        left.write_bytes(content[:torn] + bytes(len(content) - torn))
        for ref in refs[journal._FEW :]:
            store.path(ref.oid).unlink()
        after = ObjectStore(root)
        assert [after.has(ref.oid) for ref in refs] == [number < 15 for number in NUMBERS]
        assert not left.exists()

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            bytes(100),
            journal._MAGIC,
            journal._RECORD.pack(journal._MAGIC, 1 << 60, bytes(32)) + b"x",
            journal._RECORD.pack(journal._MAGIC, 0, sha256().digest()),
            journal._RECORD.pack(journal._MAGIC, 3, bytes(32)) + b"abc",
        ],
    )
    def test_damaged(self, root: Path, content: bytes) -> None:
        (root / "journal").mkdir(parents=True)
        (root / "journal/1-ab").write_bytes(content)
        assert list(ObjectStore(root).oids()) == []
        assert _journals(root) == []

    def test_one_of_a_live_process_is_left_alone(self, root: Path) -> None:
        store = ObjectStore(root)
        _write(store)
        ObjectStore(root)
        assert len(_journals(root)) == 1
        store.close()

    def test_where_nothing_can_be_written_it_stays(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = ObjectStore(root)
        refs = _write(store)
        left = _leave(store)
        store.path(refs[-1].oid).unlink()
        with monkeypatch.context() as patch:
            patch.setattr(ObjectStore, "_create", _no_space)
            assert not ObjectStore(root).has(refs[-1].oid)
            assert left.exists()
        assert ObjectStore(root).has(refs[-1].oid)


class TestWithout:
    def test_the_first_few_and_large_ones(self, root: Path) -> None:
        store = ObjectStore(root)
        _write(store, range(journal._FEW))
        store.write([bytes(journal.LARGEST + 1)])
        store.sync()
        assert _journals(root) == []

    def test_where_it_cannot_be_written(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        disk = _Disk(monkeypatch)
        root.mkdir()
        (root / "journal").touch()
        store = ObjectStore(root)
        refs = _write(store)
        assert disk.cut_power(root, [store.path(ref.oid) for ref in refs]) == []

    def test_with_a_shared_store(self, root: Path, tmp_path: Path) -> None:
        """Other clones link its files, and do not know of the journal."""
        (tmp_path / "pool").mkdir()
        store = ObjectStore(root, SharedStore(tmp_path / "pool", root))
        _write(store)
        assert _journals(root) == []

    def test_a_failing_disk_at_the_end_leaves_it_for_the_next(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = ObjectStore(root)
        refs = _write(store)
        with monkeypatch.context() as patch:
            patch.setattr(object_files, "sync_path", _broken)
            store.close()
        assert len(_journals(root)) == 1
        after = ObjectStore(root)
        assert _journals(root) == []
        assert all(after.has(ref.oid) for ref in refs)


def _no_space(*_: object, **__: object) -> None:
    raise StoreError("no space left on the disk")


def _broken(path: Path) -> None:
    raise OSError(errno.EIO, "I/O error", str(path))


_WRITE_SMALL_ONES = """
import os, sys
from pathlib import Path
from git_theta.store import ObjectStore
store = ObjectStore(Path(sys.argv[1]))
while True:
    store.write([os.urandom(2000)])
    store.sync()
"""
