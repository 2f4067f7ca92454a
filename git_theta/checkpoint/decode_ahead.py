"""Parts of a file that are decoded before their turn, while it waits for the objects of others.

Git takes a file from its first byte to its last, and git-lfs brings the largest objects first, side
by side: most of a file can be decoded before what it begins with is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

BUDGET = 128 << 20
"""Decoded bytes that may wait for their turn."""


class DecodeAhead(Generic[T, R]):
    """Does ``work`` on ``items`` before anybody asks for it, until it is closed.

    ``ready`` yields the number of each item once it can be worked on, ``weight`` says how many
    bytes come of it. A thread does one after another while what waits weighs at most ``budget``.
    """

    def __init__(
        self,
        work: Callable[[T], R],
        items: Sequence[T],
        ready: Iterable[int],
        weight: Callable[[T], int],
        budget: int = BUDGET,
    ) -> None:
        self._work = work
        self._items = items
        self._ready = ready
        self._weight = weight
        self._room = budget
        self._lock = Lock()
        self._results: dict[int, Future[R]] = {}
        self._taken: set[int] = set()
        self._is_over = False
        Thread(target=self._run, name="git-theta", daemon=True).start()

    def close(self) -> None:
        """Begin nothing more; it may be waiting for a download, which a failure need not."""
        self._is_over = True

    def take(self, number: int) -> R:
        """Return the result of an item, once: what it has, is about to have, or makes now."""
        item = self._items[number]
        with self._lock:
            self._taken.add(number)
            begun = self._results.pop(number, None)
        if begun is None:
            return self._work(item)
        try:
            return begun.result()
        finally:
            with self._lock:
                self._room += self._weight(item)

    def _run(self) -> None:
        for number in self._ready:
            if self._is_over:
                return
            if (result := self._begin(number)) is None:
                continue
            try:
                result.set_result(self._work(self._items[number]))
            except BaseException as error:
                result.set_exception(error)  # for whoever takes it
            del result  # which holds what was made

    def _begin(self, number: int) -> Future[R] | None:
        weight = self._weight(self._items[number])
        with self._lock:
            if number in self._taken or weight > self._room:
                return None  # it is made in its turn
            self._room -= weight
            return self._results.setdefault(number, Future())
