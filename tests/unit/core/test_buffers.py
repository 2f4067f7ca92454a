from __future__ import annotations

import gc

import numpy as np
import pytest

from git_theta.core import buffers
from git_theta.core.arrays import new_array

_LARGE = 16 << 20


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_when_nothing_refers_to_it():
    first = new_array(_LARGE)
    place = _address(first)
    del first
    gc.collect()
    assert _address(new_array(_LARGE - 5)) == place


def test_memory_is_not_used_again_while_anything_refers_to_it():
    array = new_array(_LARGE)
    array[:] = 7
    views = [
        array[5:],
        memoryview(array)[9:],
        np.frombuffer(array.data, np.uint8)[1000:2000].reshape(10, 100).T,
        array.view(np.uint16),
        array.view(np.ndarray),
    ]
    del array
    while views:
        gc.collect()
        others = [new_array(_LARGE) for _ in range(3)]
        for other in others:
            other[:] = 1
        assert all(
            (np.asarray(view).view(np.uint8).reshape(-1)[:64] == 7).all()
            for view in views
            if np.asarray(view).flags.c_contiguous
        )
        assert all(np.asarray(view).reshape(-1)[0] in (7, 0x0707) for view in views)
        views.pop()
        del others, other


def test_little_memory_lies_idle(monkeypatch):
    monkeypatch.setattr(buffers, "_IDLE", 3 * _LARGE)
    pool = buffers._Pool()
    arrays = [pool.take(_LARGE) for _ in range(8)]
    arrays.clear()
    gc.collect()
    assert sum(map(len, pool._idle.values())) == 3


def test_memory_that_cannot_be_had_is_no_error_of_a_file(monkeypatch):
    monkeypatch.setattr(buffers, "_pool", buffers._Pool())
    with pytest.raises(MemoryError, match="bytes of memory left"):
        buffers.new_buffer(1 << 60)


def test_small_arrays_are_numpys_own():
    assert new_array(100).flags.owndata
