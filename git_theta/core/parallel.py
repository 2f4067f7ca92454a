"""Ordered work on several threads, with a bound on what is in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


# Small results that wait for the one before theirs. While the factors of a merged LoRA's matrix are
# found, 30 chunks of 16 MB are read and found to be stored already.
_WAITING = 32


def in_order(
    work: Callable[[T], R], items: Iterable[T], workers: int, *, small_results: bool = False
) -> Iterator[R]:
    """``map(work, items)`` on ``workers`` threads, results in the order of the items.

    At most ``workers + 1`` items are in flight: memory is bounded by them. Items are drawn, and
    results handed over, on the calling thread, which also does the work of an only item. The
    first exception stops the rest; closing the iterator early does too.

    With ``small_results``, which may wait for the one before theirs, an item that takes long holds
    up no other: only items whose work is not done count as in flight.
    """
    drawn = iter(items)
    begun = deque(islice(drawn, 2))
    if len(begun) < 2:  # of hundreds of small files: a thread takes longer than its work
        yield from map(work, begun)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="git-theta")
    running: deque[Future[R]] = deque()
    try:
        for item in chain(_drained(begun), drawn):
            running.append(pool.submit(work, item))
            if small_results:
                yield from _finished(running, workers)
            elif len(running) > workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(running: deque[Future[R]], workers: int) -> Iterator[R]:
    """Yield results whose turn has come, and wait until at most ``workers`` items are not done."""
    while True:
        while running and (running[0].done() or len(running) > workers + _WAITING):
            yield running.popleft().result()
        busy = [each for each in running if not each.done()]
        if len(busy) <= workers:
            return
        wait(busy, return_when=FIRST_COMPLETED)


def _drained(items: deque[T]) -> Iterator[T]:
    """Yield items that nobody holds any more then."""
    while items:
        yield items.popleft()


def ahead(
    work: Callable[[T], R],
    items: Iterable[T],
    weight: Callable[[T], int],
    budget: int,
    workers: int,
) -> Iterator[R]:
    """Like ``in_order``, with what is in flight bounded by its weight.

    Items are worked on ahead of the one that the caller holds as long as all of them together
    weigh at most ``budget``. A heavier item is only begun when the caller is done with the last.
    """
    rest = deque(items)
    running: deque[tuple[int, Future[R]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="git-theta")

    def submit(held: int) -> bool:
        total = held + sum(size for size, _ in running)
        if not rest or (total and total + weight(rest[0]) > budget) or len(running) > workers:
            return False
        item = rest.popleft()
        running.append((weight(item), pool.submit(work, item)))
        return True

    try:
        while submit(0) or running:
            while submit(0):
                pass
            size, future = running.popleft()
            result = future.result()
            del future  # which holds the result too
            while submit(size):
                pass
            yield result
            del result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batches(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Yield runs of items whose sizes add up to at least ``limit``, the last one excepted."""
    batch: list[T] = []
    total = 0
    for item in items:
        batch.append(item)
        total += size(item)
        del item  # whoever gets the batch decides how long items live
        if total >= limit:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
