"""The index: knows what it was told, survives damage, never gets in the way."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from git_theta.core.hashes import Ref, content_hash
from git_theta.core.locks import exclusive_lock
from git_theta.errors import StoreError
from git_theta.store import Index, Location, Stamp
from tests.support.failures import (
    kill_when,
    largest_file,
    on_tmpfs,
    public_folder,
    read_only,
    run_together,
    unprivileged,
)


def name(number: int) -> str:
    return content_hash(number.to_bytes(8, "little"))


def place(
    content: int, oid: int = 0, offset: int = 0, length: int = 10, base: int = -1, depth: int = 0
) -> Location:
    ref = Ref(name(1_000_000 + oid), 1 << 40, offset, length)
    return Location(name(content), 100, ref, None if base < 0 else name(base), depth)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "theta") as opened:
        yield opened


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "theta" / "index.db"


LOCATIONS = st.builds(
    Location,
    hash=st.integers(0, 30).map(name),
    raw_length=st.integers(1, 1 << 28),
    ref=st.builds(
        Ref,
        oid=st.integers(0, 5).map(name),
        size=st.just(1 << 62),
        offset=st.integers(0, 1 << 61),
        length=st.integers(1, 1 << 61),
    ),
    base=st.none() | st.integers(1, 30).map(name),
    depth=st.integers(0, 64),
)


class TestLookUp:
    @settings(max_examples=50)
    @given(rows=st.lists(LOCATIONS, max_size=30, unique_by=lambda row: (row.hash, row.ref)))
    def test_finds_what_was_added(
        self, tmp_path_factory: pytest.TempPathFactory, rows: list[Location]
    ) -> None:
        places = {(row.hash, row.ref.oid, row.ref.offset): row for row in rows}
        with Index(tmp_path_factory.mktemp("index")) as index:
            index.add(rows)
            for content in {row.hash for row in rows}:
                found = index.find(content)
                expected = {row for row in places.values() if row.hash == content}
                assert set(found) == expected
                assert len(found) == len(expected)

    def test_the_cheapest_first(self, index: Index) -> None:
        deep = place(1, oid=1, depth=2, base=5, length=1)
        large = place(1, oid=2, length=20)
        small = place(1, oid=3, length=10)
        index.add([deep, large, small])
        assert index.find(name(1)) == [small, large, deep]

    def test_many(self, index: Index) -> None:
        rows = [place(n, oid=n // 100, offset=10 * n) for n in range(3_000)]
        index.add(rows)
        asked = [name(n) for n in range(0, 6_000, 2)]
        found = index.find_many(asked)
        assert found == {name(n): [rows[n]] for n in range(0, 3_000, 2)}
        assert index.find_many([]) == {}

    def test_absent(self, index: Index) -> None:
        assert index.find(name(1)) == []
        index.add([place(2)])
        assert index.find(name(1)) == []

    def test_looking_creates_nothing(self, tmp_path: Path, index: Index) -> None:
        index.find(name(1))
        index.find_many([name(1)])
        index.forget([name(1)])
        index.add([])
        assert not list(tmp_path.iterdir())

    def test_outlives_the_process(self, tmp_path: Path) -> None:
        with Index(tmp_path) as first:
            first.add([place(1)])
        with Index(tmp_path) as second:
            assert second.find(name(1)) == [place(1)]

    def test_close_is_not_the_end(self, index: Index) -> None:
        index.add([place(1)])
        index.close()
        index.close()
        assert index.find(name(1)) == [place(1)]


class TestGathered:
    @pytest.fixture(autouse=True)
    def gathering(self, index: Index) -> None:
        index.gather()

    def test_found_at_once_here_and_by_others_in_the_end(self, index: Index, tmp_path: Path):
        near, far = place(1, length=10), place(1, oid=1, length=20)
        stamp = Stamp(1 << 40, 12, 34)
        index.add([far, near], {near.ref.oid: stamp})
        assert index.find(name(1)) == [near, far]
        assert [row.stamp for row in index.find(name(1))] == [stamp, None]
        assert index.stamps([near.ref.oid, name(7)]) == {near.ref.oid: stamp}
        with Index(tmp_path / "theta") as other:
            assert other.find(name(1)) == []
            index.close()
            assert other.find(name(1)) == [near, far]
            assert other.stamps([near.ref.oid]) == {near.ref.oid: stamp}

    def test_gathering_twice_loses_nothing(self, index: Index):
        index.add([place(1)])
        index.gather()
        index.close()
        assert index.find(name(1)) == [place(1)]

    def test_beside_what_is_written(self, index: Index):
        index.add([place(1)])
        index.close()
        index.add([place(2)])
        assert index.find_many([name(1), name(2), name(3)]) == {
            name(1): [place(1)],
            name(2): [place(2)],
        }

    @pytest.mark.parametrize("wait", [0, 1.5])
    def test_written_when_there_are_many_or_it_is_time(self, index, tmp_path, monkeypatch, wait):
        index.add([place(0)])
        now = time.monotonic() + wait
        monkeypatch.setattr(time, "monotonic", lambda: now)
        index.add([place(n) for n in range(1, 2 if wait else 1_500)])
        with Index(tmp_path / "theta") as other:
            assert other.find(name(0)) == [place(0)]
            assert other.find(name(1)) == [place(1)]

    def test_similar_contents_are_found_at_once(self, index: Index):
        index.add([replace(place(1), sketch=(5, 6))])
        assert index.similar([6, 7], 2) == [name(1)]

    def test_what_waits_can_be_forgotten(self, index: Index):
        index.add([place(1)])
        index.forget([place(1).ref.oid])
        assert index.find(name(1)) == []


class TestChange:
    def test_adding_again_changes_nothing(self, index: Index) -> None:
        index.add([place(1), place(1)])
        index.add([place(1)])
        assert index.find(name(1)) == [place(1)]

    def test_forget(self, index: Index) -> None:
        index.add([place(1, oid=1), place(1, oid=2), place(2, oid=1), place(3, oid=3)])
        index.forget([place(1, oid=1).ref.oid, name(77)])
        assert index.find(name(1)) == [place(1, oid=2)]
        assert index.find(name(2)) == []
        assert index.find(name(3)) == [place(3, oid=3)]
        index.add([place(2, oid=1)])
        assert index.find(name(2)) == [place(2, oid=1)]

    def test_forget_many(self, index: Index) -> None:
        rows = [place(n, oid=n) for n in range(2_000)]
        index.add(rows)
        index.forget(row.ref.oid for row in rows[1:])
        assert index.find_many(row.hash for row in rows) == {name(0): [rows[0]]}

    def test_rebuild(self, index: Index) -> None:
        index.add([place(1), place(2)])
        index.rebuild([place(2, oid=5), place(3)])
        assert index.find(name(1)) == []
        assert index.find(name(2)) == [place(2, oid=5)]
        assert index.find(name(3)) == [place(3)]
        index.rebuild([])
        assert index.find(name(3)) == []

    def test_a_rebuild_that_fails_keeps_the_old(self, index: Index) -> None:
        def broken() -> Iterator[Location]:
            yield place(2)
            raise RuntimeError

        index.add([place(1)])
        with pytest.raises(RuntimeError):
            index.rebuild(broken())
        assert index.find(name(1)) == [place(1)]

    def test_others_see_changes_at_once(self, tmp_path: Path, index: Index) -> None:
        with Index(tmp_path / "theta") as other:
            index.add([place(1)])
            assert other.find(name(1)) == [place(1)]
            other.rebuild([place(2)])
            assert index.find(name(1)) == []
            assert index.find(name(2)) == [place(2)]


_ADD = """
import sys
from pathlib import Path
from git_theta.core.hashes import Ref, content_hash
from git_theta.store import Index, Location
worker = int(sys.argv[2])
names = [content_hash(bytes([worker, n])) for n in range(200)]
index = Index(Path(sys.argv[1]))
print("ready", flush=True)
input()
for name in names:
    index.add([Location(name, 1, Ref(names[0], 5, 0, 5), None, 0)])
    assert index.find(name)
index.close()
"""

_ADD_MANY = """
import os, sys
from pathlib import Path
from git_theta.core.hashes import Ref
from git_theta.store import Index, Location
index = Index(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    rows = [
        Location(f"{number:032x}{n:032x}", number, Ref(f"{number:064x}", 5, 0, 5), None, 0)
        for n in range(2_000)
    ]
    index.add(rows)
"""


class TestTogether:
    def test_threads(self, index: Index) -> None:
        failures: list[BaseException] = []

        def work(worker: int) -> None:
            try:
                for n in range(worker, 400, 4):
                    index.add([place(n)])
                    assert index.find(name(n)) == [place(n)]
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert len(index.find_many(map(name, range(400)))) == 400

    def test_processes_that_create_it_at_once(self, tmp_path: Path, index: Index) -> None:
        run_together(_ADD, [[tmp_path / "theta", str(worker)] for worker in range(4)])
        names = [content_hash(bytes([worker, n])) for worker in range(4) for n in range(200)]
        assert len(index.find_many(names)) == 800
        assert not list((tmp_path / "theta").glob("*.aside"))

    def test_killed_while_adding(self, tmp_path: Path, index: Index, database: Path) -> None:
        def in_a_transaction() -> bool:
            journal = database.with_name("index.db-journal")
            return journal.exists() and database.stat().st_size > 1 << 20

        kill_when(_ADD_MANY, in_a_transaction, database.parent)
        first = index.find_many(f"{1:032x}{n:032x}" for n in range(2_000))
        assert len(first) == 2_000
        # Every transaction is there whole or not at all.
        for number in range(2, 1_000):
            found = index.find_many(f"{number:032x}{n:032x}" for n in range(2_000))
            assert len(found) in (0, 2_000)
            if not found:
                break


def damage(database: Path, how: str) -> None:
    """Make the database unusable, in one of the ways in which files go bad."""
    data = database.read_bytes()
    if how == "garbage":
        database.write_bytes(b"not a database at all" * 1000)
    elif how == "cut off":
        database.write_bytes(data[: len(data) // 2])
    elif how == "pages":
        database.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    elif how == "tables":
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("DROP TABLE place")
    elif how == "newer":
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA user_version = 99")
    elif how == "foreign":
        database.unlink()
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE place (address TEXT)")


DAMAGES = ["garbage", "cut off", "pages", "tables", "newer", "foreign"]


class TestDamage:
    @pytest.fixture(autouse=True)
    def filled(self, index: Index) -> None:
        index.add([place(n, oid=n) for n in range(500)])
        index.close()

    @pytest.mark.parametrize("how", DAMAGES)
    def test_begins_anew_when_reading(self, index: Index, database: Path, how: str) -> None:
        damage(database, how)
        # A file that is cut off may still answer for some rows, but never wrongly.
        found = index.find_many(map(name, range(500)))
        assert all(
            places == [place(n, oid=n)] for n in range(500) if (places := found.get(name(n)))
        )
        assert how == "cut off" or not found

    @pytest.mark.parametrize("how", DAMAGES)
    def test_begins_anew_when_writing(self, index: Index, database: Path, how: str) -> None:
        damage(database, how)
        rows = [place(n, oid=n) for n in range(500, 1_000)]
        index.add(rows)
        assert index.find_many(map(name, range(500, 1_000))) == {row.hash: [row] for row in rows}
        assert database.with_name("index.db.aside").exists()

    def test_while_it_is_open(self, index: Index, database: Path, tmp_path: Path) -> None:
        with Index(tmp_path / "theta") as other:
            assert index.find(name(1))
            assert other.find(name(1))
            index._quarantine()
            index.add([place(1, oid=7)])
            # The other one found the damage too, later: it must not set the new one aside.
            other._quarantine()
            assert other.find(name(1)) == [place(1, oid=7)]

    def test_empty_file(self, index: Index, database: Path) -> None:
        database.write_bytes(b"")
        index.add([place(1)])
        assert index.find(name(1)) == [place(1)]

    @pytest.mark.parametrize("column", ["start", "length", "raw", "depth", "checksum"])
    def test_a_flipped_bit_is_no_row(self, index: Index, database: Path, column: str) -> None:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(f"UPDATE place SET {column} = {column} + 4")
            connection.commit()
        assert index.find(name(3)) == []
        index.add([place(3, oid=3)])
        assert index.find(name(3)) == [place(3, oid=3)]

    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE object SET size = size - 1",
            "UPDATE object SET oid = randomblob(32)",
            "UPDATE place SET base = 'text'",
            "UPDATE place SET start = 'text'",
            "UPDATE place SET length = -5",
        ],
    )
    def test_a_damaged_value_is_no_row(self, index: Index, database: Path, change: str) -> None:
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(change)
            connection.commit()
        assert index.find(name(3)) == []
        index.add([place(3, oid=3)])
        assert index.find(name(3)) == [place(3, oid=3)]


class TestCannotWrite:
    """The work at hand is right without the index: a failure of it is a warning, once."""

    @pytest.fixture(autouse=True)
    def log(self, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
        return caplog

    def test_no_room(self, index: Index, log: pytest.LogCaptureFixture) -> None:
        index.add([place(1)])
        with largest_file(1 << 16):
            index.add([place(n) for n in range(2, 5_000)])
            index.forget([name(1)])
        assert len(log.messages) == 1
        assert "costs time only" in log.messages[0]
        assert str(index._path) in log.messages[0]
        assert index.find(name(1)) == [place(1)], "what was there can still be read"
        assert index.find(name(2)) == []

    def test_a_read_only_repository_is_read(self, log: pytest.LogCaptureFixture) -> None:
        with public_folder() as folder, Index(folder) as index:
            index.add([place(1)])
            index.close()
            with read_only(folder), unprivileged(), Index(folder) as other:
                assert other.find(name(1)) == [place(1)]
                other.add([place(2)])
                other.forget([name(1)])
                assert other.find(name(1)) == [place(1)]
                with pytest.raises(StoreError):
                    other.rebuild([])
            assert log.messages == []
            assert index.find(name(1)) == [place(1)]

    def test_a_read_only_file_system(self, tmp_path: Path) -> None:
        assert on_tmpfs("size=4m", _READ_ONLY, tmp_path / "disk") == "True\nTrue\n"

    def test_a_repository_that_may_not_be_entered(
        self, index: Index, database: Path, log: pytest.LogCaptureFixture
    ) -> None:
        index.add([place(1)])
        index.close()
        database.parent.chmod(0)
        with unprivileged():
            assert index.find(name(1)) == []
            index.forget([name(1)])
        assert len(log.messages) == 1

    def test_a_folder_in_its_place_is_moved_aside(self, index: Index, database: Path) -> None:
        for number in range(2):
            database.mkdir(parents=True)
            (database / "something").write_text("of somebody's")
            index.add([place(number)])
            assert index.find(name(number)) == [place(number)]
            index.close()
            database.unlink()
        kept = list(database.parent.glob("index.db.aside*"))
        assert [(folder / "something").read_text() for folder in kept] == ["of somebody's"] * 2

    @pytest.mark.parametrize("held", ["database", "guard"])
    def test_a_lock_that_is_held_costs_two_seconds(
        self, index: Index, database: Path, log: pytest.LogCaptureFixture, held: str
    ) -> None:
        index.add([place(1)])
        index.close()
        begun = time.monotonic()
        with ExitStack() as stack:
            if held == "database":
                other = stack.enter_context(closing(sqlite3.connect(database)))
                other.execute("BEGIN EXCLUSIVE")
            else:
                stack.enter_context(exclusive_lock(database.with_name("index.lock")))
            for _ in range(3):
                assert index.find(name(1)) == []
                index.add([place(2)])
                index.forget([name(1)])
        assert time.monotonic() - begun < 4
        assert len(log.messages) == 1
        with Index(database.parent) as later:
            assert later.find(name(1)) == [place(1)]


_READ_ONLY = """
import subprocess, sys
from pathlib import Path
from git_theta.core.hashes import Ref
from git_theta.store import Index, Location
root = Path(sys.argv[1]) / "theta"
row = Location("0" * 64, 1, Ref("1" * 64, 5, 0, 5), None, 0)
with Index(root) as index:
    index.add([row])
subprocess.run(["mount", "-o", "remount,ro", sys.argv[1]], check=True)
with Index(root) as index:
    print(index.find("0" * 64) == [row])
    index.add([row, Location("2" * 64, 1, Ref("1" * 64, 5, 0, 5), None, 0)])
    print(index.find("0" * 64) == [row])
"""


class TestStamps:
    """Which file an object was when it was verified."""

    def test_with_rows_and_alone(self, index: Index) -> None:
        row, alone = place(1, oid=1), name(77)
        index.add([row], {row.ref.oid: Stamp(1 << 40, 12, 34), alone: Stamp(5, 1, 2)})
        assert index.stamps([row.ref.oid, alone, name(78)]) == {
            row.ref.oid: Stamp(1 << 40, 12, 34),
            alone: Stamp(5, 1, 2),
        }
        assert index.find(name(1))[0].stamp == Stamp(1 << 40, 12, 34)

    def test_stays_until_there_is_a_new_one(self, index: Index) -> None:
        row = place(1)
        index.add([row], {row.ref.oid: Stamp(1 << 40, 12, 34)})
        index.add([row])
        assert index.find(name(1))[0].stamp == Stamp(1 << 40, 12, 34)
        index.add([], {row.ref.oid: Stamp(1 << 40, 56, 78)})
        assert index.find(name(1))[0].stamp == Stamp(1 << 40, 56, 78)

    def test_goes_with_its_object(self, index: Index) -> None:
        row = place(1)
        index.add([row], {row.ref.oid: Stamp(1 << 40, 12, 34)})
        index.forget([row.ref.oid])
        index.add([row])
        assert index.find(name(1))[0].stamp is None
        index.rebuild([row], {row.ref.oid: Stamp(1 << 40, 1, 2)})
        assert index.stamps([row.ref.oid]) == {row.ref.oid: Stamp(1 << 40, 1, 2)}


class TestSketches:
    def _similar(self, content: int, sketch: tuple[int, ...], base: int = -1) -> Location:
        return replace(place(content, oid=content, base=base), sketch=sketch)

    def test_those_with_the_most_numbers_in_common_come_first(self, index: Index) -> None:
        index.add([self._similar(1, (10, 20, 30)), self._similar(2, (40, 50, 60))])
        assert index.similar((10, 40, 50, 70), 2) == [name(2), name(1)]
        assert index.similar((10, 40, 50, 70), 1) == [name(2)]
        assert index.similar((70, 80), 2) == []

    def test_a_number_leads_to_the_last_with_a_base_and_the_last_without(
        self, index: Index
    ) -> None:
        for content in range(50):
            index.add([self._similar(content, (7, 8), base=content % 2 - 1)])
        assert index.similar((7, 8), 9) == [name(49), name(48)]

    def test_an_object_that_is_forgotten_is_found_no_more(self, index: Index) -> None:
        index.add([self._similar(1, (7, 8)), self._similar(2, (7, 8), base=1)])
        index.forget([place(2, oid=2).ref.oid])
        assert index.similar((7, 8), 9) == [name(1)]
        index.rebuild([place(3)])
        assert index.similar((7, 8), 9) == []
