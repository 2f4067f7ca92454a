"""Objects on their way: who needs one waits for it, and for no other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from git_theta.store.arrivals import Arrivals

SECONDS = 10


def test_only_what_is_expected_is_waited_for():
    arrivals = Arrivals()
    arrivals.wait_for({"a"})
    arrivals.come("a")
    assert not arrivals.pending
    arrivals.expect(["a", "b"])
    arrivals.wait_for({"c"})
    assert arrivals.awaits(["c", "a"])
    arrivals.come("a")
    assert not arrivals.awaits(["c", "a"])
    assert arrivals.pending


@pytest.mark.parametrize("ends", [True, False])
def test_waiting_ends_when_all_have_come_or_nothing_will(ends):
    arrivals = Arrivals()
    arrivals.expect("ab")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(arrivals.wait_for, {"a", "b"})
        arrivals.come("a")
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.1)
        if ends:
            arrivals.end()
        else:
            arrivals.come("b")
        waiting.result(timeout=SECONDS)


def test_groups_come_in_the_order_of_their_last_object():
    arrivals = Arrivals()
    arrivals.expect("abcd")
    turns = arrivals.in_turn([{"a", "b"}, {"c"}, set(), {"c", "d"}, {"x"}])
    assert [next(turns), next(turns)] == [2, 4]
    later = threading.Timer(0.1, lambda: [arrivals.come(oid) for oid in "bc"])
    later.start()
    assert next(turns) == 1
    arrivals.come("a")
    assert next(turns) == 0
    threading.Timer(0.1, arrivals.end).start()
    assert list(turns) == [3]
