"""Objects on their way here, while those that have come are decoded already."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from threading import Condition


class Arrivals:
    """What another thread is about to bring to a store. Safe for use by several threads."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._awaited: set[str] = set()

    @property
    def pending(self) -> bool:
        """Return whether anything is on its way."""
        return bool(self._awaited)

    def expect(self, oids: Iterable[str]) -> None:
        """Say that objects are on their way, until ``come`` or ``end`` says otherwise."""
        with self._changed:
            self._awaited.update(oids)

    def come(self, oid: str) -> None:
        """Say that an object is here."""
        if oid in self._awaited:
            with self._changed:
                self._awaited.discard(oid)
                self._changed.notify_all()

    def end(self) -> None:
        """Say that what has not come will not."""
        with self._changed:
            self._awaited.clear()
            self._changed.notify_all()

    def awaits(self, oids: Iterable[str]) -> bool:
        """Return whether any of ``oids`` is on its way."""
        with self._changed:
            return not self._awaited.isdisjoint(oids)

    def wait_for(self, oids: Collection[str]) -> None:
        """Wait until none of ``oids`` is on its way: each is here, or will not come."""
        if self.awaits(oids):
            with self._changed:
                self._changed.wait_for(lambda: not self.awaits(oids))

    def in_turn(self, groups: Sequence[Collection[str]]) -> Iterator[int]:
        """Yield the number of each group of oids as soon as none of them is on its way."""
        with self._changed:
            lacking = [self._awaited.intersection(group) for group in groups]
        needed_by: dict[str, list[int]] = defaultdict(list)
        for number, oids in enumerate(lacking):
            for oid in oids:
                needed_by[oid].append(number)
        ready = deque(number for number, oids in enumerate(lacking) if not oids)
        while ready or needed_by:
            while ready:
                yield ready.popleft()
            for oid in self._settled(needed_by):
                for number in needed_by.pop(oid):
                    lacking[number].discard(oid)
                    if not lacking[number]:
                        ready.append(number)

    def _settled(self, oids: Collection[str]) -> list[str]:
        """Wait for the next of ``oids`` that are here or will not come; return them."""

        def settled() -> list[str]:
            return [oid for oid in oids if oid not in self._awaited]

        with self._changed:
            return self._changed.wait_for(settled) if oids else []
