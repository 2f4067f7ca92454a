"""Rows for the index that wait to be written together: a transaction took 0.7 ms for each file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from threading import Lock

from git_theta.store.rows import Location, Stamp, cost

# Rows and stamps that wait, and for how many seconds.
_MOST = 1000
_LONGEST = 1.0


class GatheredRows:
    """What has been noted and not written yet; safe for use by several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._rows: dict[str, list[Location]] = {}
        self._stamps: dict[str, Stamp] = {}
        self._oldest = 0.0

    def add(self, locations: Iterable[Location], stamps: Mapping[str, Stamp]) -> bool:
        """Note rows and stamps; return whether it is time to write what waits."""
        with self._lock:
            if not self._rows and not self._stamps:
                self._oldest = time.monotonic()
            for row in locations:
                self._rows.setdefault(row.hash, []).append(row)
            self._stamps |= stamps
            many = len(self._rows) + len(self._stamps) > _MOST
        return many or time.monotonic() > self._oldest + _LONGEST

    def take(self) -> tuple[list[Location], dict[str, Stamp]]:
        """Return what waits, to be written by the caller."""
        with self._lock:
            rows = [row for places in self._rows.values() for row in places]
            stamps, self._rows, self._stamps = self._stamps, {}, {}
        return rows, stamps

    def find(self, contents: Iterable[str]) -> dict[str, list[Location]]:
        """Return the rows of those of ``contents`` that wait, with the stamps of their objects."""
        with self._lock:
            if not self._rows:
                return {}
            found = {key: self._rows[key] for key in contents if key in self._rows}
            return {key: sorted(map(self._stamped, rows), key=cost) for key, rows in found.items()}

    def _stamped(self, row: Location) -> Location:
        return replace(row, stamp=self._stamps.get(row.ref.oid))

    def stamps(self, oids: Iterable[str]) -> dict[str, Stamp]:
        """Return those of the objects' stamps that wait."""
        with self._lock:
            return {oid: self._stamps[oid] for oid in oids if oid in self._stamps}
