from __future__ import annotations

import threading

import pytest

from git_theta.core.parallel import batches, in_order


def test_results_come_in_the_order_of_the_items():
    gates = [threading.Event() for _ in range(3)]

    def work(index: int) -> int:
        if index < 2:
            gates[index + 1].wait(5)  # finishes after its successor
        gates[index].set()
        return index

    assert list(in_order(work, range(3), workers=3)) == [0, 1, 2]


def test_few_items_are_drawn_ahead():
    drawn = []

    def items():
        for index in range(100):
            drawn.append(index)
            yield index

    results = in_order(lambda index: index, items(), workers=2)
    assert next(results) == 0
    assert len(drawn) == 3
    results.close()


def test_the_first_error_ends_it():
    def work(index: int) -> int:
        return 1 // (3 - index)

    results = in_order(work, range(100), workers=2)
    with pytest.raises(ZeroDivisionError):
        list(results)


def test_an_item_that_takes_long_holds_up_no_other_whose_results_are_small():
    others = threading.Semaphore(0)

    def work(index: int) -> int:
        if index == 0:
            # Only when ten others are done, which are drawn before this one's result is.
            assert all(others.acquire(timeout=5) for _ in range(10))
        else:
            others.release()
        return index

    results = list(in_order(work, range(20), workers=2, small_results=True))
    assert results == list(range(20))


@pytest.mark.parametrize("slow", [0, 1])
def test_no_more_items_are_drawn_than_are_worked_on_and_one(slow: int):
    undone = 0
    most = 0
    lock = threading.Lock()
    go_on = threading.Event()

    def items():
        nonlocal undone, most
        for index in range(200):
            with lock:
                undone += 1
                most = max(most, undone)
            yield index

    def work(index: int) -> int:
        nonlocal undone
        if index == slow:
            go_on.wait(0.2)
        with lock:
            undone -= 1
        return index

    assert list(in_order(work, items(), workers=2, small_results=True)) == list(range(200))
    assert most <= 4  # one drawn, one that waits, two at work; what is done is let go


def test_small_results_wait_up_to_a_bound():
    gate, drawn = threading.Event(), []

    def items():
        for index in range(1000):
            drawn.append(index)
            yield index

    def work(index: int) -> int:
        if index == 0:
            gate.wait(0.5)
        return index

    results = in_order(work, items(), workers=2, small_results=True)
    assert next(results) == 0
    assert len(drawn) < 100
    results.close()


def test_batches_reach_their_limit_and_keep_the_order():
    assert list(batches([3, 3, 9, 1, 1], lambda item: item, 5)) == [[3, 3], [9], [1, 1]]
    assert list(batches([], lambda item: item, 5)) == []


def test_one_item_needs_no_thread():
    assert list(in_order(lambda _: threading.current_thread(), [0], workers=2)) == [
        threading.current_thread()
    ]
    assert list(in_order(str, [], workers=2)) == []
