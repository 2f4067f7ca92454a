"""The tables of the index, and rows as values."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from zlib import crc32

from git_theta.core.hashes import Ref

_APPLICATION = 0x47544849  # "GTHI", in the header of the file
_VERSION = 3
_BATCH = 500  # SQLite before 3.32 takes 999 parameters

# Hashes as blobs and each oid once: 8.5 MB for 90,000 rows. A row's checksum is there because
# SQLite has none: a flipped bit in an offset would otherwise enter a manifest and stay there.
_SCHEMA = f"""
CREATE TABLE object (
  id INTEGER PRIMARY KEY, oid BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
  inode INTEGER, mtime INTEGER
);
CREATE TABLE place (
  hash BLOB NOT NULL, object INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
  raw INTEGER NOT NULL, depth INTEGER NOT NULL, base BLOB NOT NULL, checksum INTEGER NOT NULL,
  PRIMARY KEY (hash, object, start)
) WITHOUT ROWID;
CREATE TABLE sketch (
  number INTEGER NOT NULL, has_base INTEGER NOT NULL, hash BLOB NOT NULL,
  PRIMARY KEY (number, has_base)
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""
_FIND = """
SELECT hash, oid, size, start, length, raw, depth, base, checksum, inode, mtime
FROM place JOIN object ON object = id WHERE hash IN ({})
"""
_ADD_OBJECT = """
INSERT INTO object (oid, size, inode, mtime) VALUES (?, ?, ?, ?)
ON CONFLICT (oid) DO UPDATE SET size = excluded.size,
  inode = coalesce(excluded.inode, inode), mtime = coalesce(excluded.mtime, mtime)
"""
_FIND_STAMPS = "SELECT oid, size, inode, mtime FROM object WHERE oid IN ({}) AND mtime IS NOT NULL"
_FIND_SIMILAR = "SELECT hash, has_base FROM sketch WHERE number IN ({})"
_CHECKED = struct.Struct("<32s32sQQQQQ32s")


class Stamp(NamedTuple):
    """The file of an object when the object was verified: bytes, inode, modified (ns)."""

    size: int
    inode: int
    mtime: int


@dataclass(frozen=True, slots=True)
class Location:
    """A verified frame: ``ref`` decodes to the ``raw_length`` bytes with content hash ``hash``.

    ``base`` is the content hash of the frame's base; ``depth`` is the number of bases that are
    decoded before it, 0 without one. ``stamp`` is the object's file when all of it was verified.
    ``sketch`` are numbers below 2**63 that similar contents have in common (only kept, not read).
    """

    hash: str
    raw_length: int
    ref: Ref
    base: str | None
    depth: int
    stamp: Stamp | None = field(default=None, compare=False)
    sketch: tuple[int, ...] = field(default=(), compare=False)


def prepare(connection: sqlite3.Connection) -> None:
    """Set up a fresh connection, and the tables of a new file.

    ``DatabaseError`` when the file is damaged, or a database of another kind or version.
    """
    # No WAL: it needs shared memory, which network file systems lack, and write access to read.
    # Without it and without fsync a power cut may damage the file; that is found, and costs
    # time only.
    connection.execute("PRAGMA synchronous = OFF")
    if not _is_ready(connection):
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if not _is_ready(connection):  # another process may have been quicker
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)


def _is_ready(connection: sqlite3.Connection) -> bool:
    pragmas = ("application_id", "user_version", "schema_version")
    kind, version, tables = (
        connection.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in pragmas
    )
    if (kind, version) == (_APPLICATION, _VERSION):
        return True
    if kind or version or tables:
        raise sqlite3.DatabaseError("a database of another kind or version")
    return False


def select(connection: sqlite3.Connection, keys: Sequence[bytes]) -> dict[str, list[Location]]:
    """Return the undamaged rows of each hash, shortest chain first, then smallest frame."""
    found: dict[str, list[Location]] = {}
    for first in range(0, len(keys), _BATCH):
        batch = keys[first : first + _BATCH]
        for row in connection.execute(_FIND.format(",".join("?" * len(batch))), batch):
            location = _location(row)
            if location is not None:
                found.setdefault(location.hash, []).append(location)
    for places in found.values():
        if len(places) > 1:
            places.sort(key=cost)
    return found


def similar(connection: sqlite3.Connection, sketch: Sequence[int], most: int) -> list[str]:
    """Return the hashes of up to ``most`` contents that have numbers of ``sketch`` in common.

    Those with the most first.
    """
    # Most often there is none: a query that groups and sorts takes three times as long.
    asked = _FIND_SIMILAR.format(",".join("?" * len(sketch)))
    found: dict[bytes, list[int]] = {}
    for hash_, has_base in connection.execute(asked, sketch):
        found.setdefault(bytes(hash_), []).append(has_base)
    # Of two that agree in as many numbers, the one with a base is likely the newer version.
    ranked = sorted(found, key=lambda hash_: (-len(found[hash_]), -max(found[hash_]), hash_))
    return [hash_.hex() for hash_ in ranked[:most]]


def stamps(connection: sqlite3.Connection, oids: Sequence[bytes]) -> dict[str, Stamp]:
    """Return the stamp of each object that was verified."""
    found = {}
    for first in range(0, len(oids), _BATCH):
        batch = oids[first : first + _BATCH]
        asked = _FIND_STAMPS.format(",".join("?" * len(batch)))
        for oid, size, inode, mtime in connection.execute(asked, batch):
            found[bytes(oid).hex()] = Stamp(size, inode, mtime)
    return found


def insert(
    connection: sqlite3.Connection,
    rows: Sequence[Location],
    stamps: Mapping[str, Stamp],
    clear: bool = False,
) -> None:
    """Add rows, or with ``clear`` replace all rows by them, in one transaction.

    ``stamps`` are of objects that were verified, whether or not a row names them.
    """
    packed = [_packed(row) for row in rows]
    # A number leads to the last content with a base and the last without: as many versions as
    # there may be, looking one up takes the same time, and where one is collected another is left.
    sketches = {
        (n, row.base is not None): bytes.fromhex(row.hash) for row in rows for n in row.sketch
    }
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if clear:
            for table in ("place", "object", "sketch"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - fixed names
        verified = {bytes.fromhex(oid): stamp for oid, stamp in stamps.items()}
        sizes = {oid: (size, None, None) for _, oid, size, *_ in packed} | verified
        connection.executemany(_ADD_OBJECT, sorted((oid, *stamp) for oid, stamp in sizes.items()))
        number = _numbers(connection, ((oid,) for oid in sizes))
        # Sorted, because a tree grows four times faster at its end than in random places.
        connection.executemany(
            "INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            sorted((content, number[oid], *rest) for content, oid, _, *rest in packed),
        )
        connection.executemany(
            "INSERT OR REPLACE INTO sketch VALUES (?, ?, ?)",
            sorted((*key, content) for key, content in sketches.items()),
        )


def delete(connection: sqlite3.Connection, oids: Sequence[tuple[bytes]]) -> None:
    """Delete the rows of the objects ``oids``, each alone in a tuple, in one transaction."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        numbers = json.dumps(list(_numbers(connection, oids).values()))
        for table, column in (("place", "object"), ("object", "id")):
            connection.execute(
                f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))",  # noqa: S608 - fixed names
                (numbers,),
            )
        connection.execute("DELETE FROM sketch WHERE hash NOT IN (SELECT hash FROM place)")


def cost(location: Location) -> tuple[int, int, str, int]:
    """Return by what places of one content are sorted: the cheapest to decode first."""
    return location.depth, location.ref.length, location.ref.oid, location.ref.offset


def _numbers(connection: sqlite3.Connection, keys: Iterable[tuple[bytes, ...]]) -> dict[bytes, int]:
    query = "SELECT id FROM object WHERE oid = ?"
    rows = ((oid, connection.execute(query, (oid,)).fetchone()) for oid, *_ in keys)
    return {oid: row[0] for oid, row in rows if row}


def _packed(row: Location) -> tuple[Any, ...]:
    values = (
        bytes.fromhex(row.hash),
        bytes.fromhex(row.ref.oid),
        row.ref.size,
        row.ref.offset,
        row.ref.length,
        row.raw_length,
        row.depth,
        bytes.fromhex(row.base or ""),
    )
    return (*values, crc32(_CHECKED.pack(*values)))


def _location(row: tuple[Any, ...]) -> Location | None:
    """Return the row as a value; ``None`` when it is damaged."""
    *values, checksum, inode, mtime = row
    try:
        if crc32(_CHECKED.pack(*values)) != checksum:
            return None
    except struct.error:  # not even of the right types
        return None
    content, oid, size, start, length, raw, depth, base = values
    ref = Ref(oid.hex(), size, start, length)
    stamp = None if mtime is None else Stamp(size, inode, mtime)
    return Location(content.hex(), raw, ref, base.hex() or None, depth, stamp)
