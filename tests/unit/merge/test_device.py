from __future__ import annotations

import pytest
import torch

from git_theta.errors import SettingsError
from git_theta.merge.device import device_named, slice_elements


def test_a_cpu_is_always_there():
    assert device_named("cpu") == torch.device("cpu")
    assert device_named("auto").type in ("cpu", "cuda", "mps")
    assert slice_elements(torch.device("cpu"), 3) == 0


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0", ""])
def test_a_name_that_is_none(name):
    with pytest.raises(SettingsError, match="not auto, cpu, cuda, cuda:N or mps"):
        device_named(name)


def test_a_device_that_is_not_here():
    with pytest.raises(SettingsError, match="torch finds no such device here"):
        device_named("cuda:63")


def test_slices_fit_what_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1 << 30, 2 << 30))
    found = slice_elements(torch.device("cuda"), 2)
    assert (1 << 29) // 4 // 20 < found < (1 << 29) // 4 // 4
    assert slice_elements(torch.device("cuda"), 8) < found


def test_a_device_that_is_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_named("auto") == torch.device("cuda")
    assert device_named("cuda:1") == torch.device("cuda:1")
    with pytest.raises(SettingsError):
        device_named("cuda:2")
