"""Work that is done before anybody asks for it."""

from __future__ import annotations

import threading
from contextlib import closing
from queue import SimpleQueue

import pytest

from git_theta.checkpoint.decode_ahead import DecodeAhead

SECONDS = 10


class Bench:
    """Doubles numbers, and counts how often."""

    def __init__(self) -> None:
        self.made: SimpleQueue[int] = SimpleQueue()
        self.ready: SimpleQueue[int | None] = SimpleQueue()

    def work(self, item: int) -> int:
        self.made.put(item)
        if item < 0:
            raise ValueError(item)
        return 2 * item

    def ahead(self, items: list[int], budget: int) -> DecodeAhead[int, int]:
        return DecodeAhead(self.work, items, iter(self.ready.get, None), abs, budget)

    def next(self) -> int:
        return self.made.get(timeout=SECONDS)


@pytest.fixture
def bench() -> Bench:
    found = Bench()
    yield found
    found.ready.put(None)


def test_what_is_ready_is_made_and_taken_once(bench):
    with closing(bench.ahead([1, 2, 3], 100)) as ahead:
        bench.ready.put(2)
        assert bench.next() == 3
        assert [ahead.take(number) for number in range(3)] == [2, 4, 6]
        assert [bench.next(), bench.next()] == [1, 2]
        bench.ready.put(0)  # it was taken
        assert bench.made.empty()


def test_what_waits_weighs_no_more_than_the_budget(bench):
    with closing(bench.ahead([5, 6, 4, 3, 9], 10)) as ahead:
        for number in (1, 2, 3, 0):
            bench.ready.put(number)
        assert [bench.next(), bench.next()] == [6, 4]  # 3 and 5 would be too much
        assert ahead.take(0) == 10
        assert ahead.take(1) == 12
        assert bench.next() == 5
        bench.ready.put(3)
        assert bench.next() == 3  # there is room again
        assert ahead.take(4) == 18
        assert ahead.take(3) == 6


def test_an_error_is_for_whoever_takes_the_item(bench):
    with closing(bench.ahead([-1, 2], 100)) as ahead:
        bench.ready.put(0)
        bench.ready.put(1)
        assert [bench.next(), bench.next()] == [-1, 2]
        assert ahead.take(1) == 4
        with pytest.raises(ValueError, match="-1"):
            ahead.take(0)


def test_nothing_more_is_made_when_it_is_over(bench):
    with closing(bench.ahead([1, 2], 100)):
        pass
    bench.ready.put(0)
    bench.ready.put(None)
    for thread in threading.enumerate():
        if thread.name == "git-theta":
            thread.join(SECONDS)
    assert bench.made.empty()
