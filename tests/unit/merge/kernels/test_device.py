from __future__ import annotations

import pytest
import torch

from git_theta.errors import SettingsError
from git_theta.merge.kernels.device import (
    GPU_SLICE,
    device_named,
    devices_named,
    slice_elements,
    threads_on,
    usual_slice,
)


def test_a_cpu_is_always_there():
    assert device_named("cpu") == torch.device("cpu")
    assert device_named("auto").type in ("cpu", "cuda", "mps")
    assert slice_elements(torch.device("cpu"), 3) == 0


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", "", "cpu,", "cpu,gpu"])
def test_a_name_that_is_none(name):
    with pytest.raises(SettingsError, match="not auto, cpu, cuda, cuda:N or mps"):
        device_named(name)


def test_a_device_that_is_not_here():
    with pytest.raises(SettingsError, match="torch finds no such device here"):
        device_named("cuda:63")


def test_slices_fit_what_is_free(monkeypatch):
    free = 1 << 28
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 << 30))
    found = slice_elements(torch.device("cuda"), 2)
    lanes = threads_on(torch.device("cuda"), 8)
    assert free // 80 < lanes * 4 * found < free // 8  # floats of several copies in each lane
    assert slice_elements(torch.device("cuda"), 8) < found
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 40, 1 << 40))
    assert slice_elements(torch.device("cuda"), 2) == GPU_SLICE


def test_a_cpu_works_on_as_many_slices_as_it_has_threads():
    assert threads_on(torch.device("cpu"), 5) == 5
    assert threads_on(torch.device("cpu"), 64) == 8
    assert threads_on(torch.device("mps"), 5) == 1


def test_slices_of_many_threads_are_larger():
    assert usual_slice(torch.device("cpu"), 2) < usual_slice(torch.device("cpu"), 3)
    assert usual_slice(torch.device("cuda"), 2) == GPU_SLICE


def test_a_device_that_is_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_named("auto") == (torch.device("cuda:0"), torch.device("cuda:1"))
    assert devices_named("cuda:1,cpu") == (torch.device("cuda:1"), torch.device("cpu"))
    assert device_named("cuda") == torch.device("cuda:0")
    assert device_named("cuda:1") == torch.device("cuda:1")
    with pytest.raises(SettingsError):
        device_named("cuda:2")


def test_slices_of_several_devices_fit_the_smallest(monkeypatch):
    free = {0: 1 << 28, 1: 1 << 26}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[device.index], 2 << 30))
    first, second = torch.device("cuda:0"), torch.device("cuda:1")
    assert slice_elements(first, 2, (second,)) == slice_elements(second, 2)
    assert threads_on(first, 8, (second,)) == 2 * threads_on(first, 8)
