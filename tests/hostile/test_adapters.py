"""Adapters made to take memory: views of little as much, and files without end."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from git_theta.adapters.config import read_config
from git_theta.adapters.stored import read_tensors
from git_theta.errors import FormatError
from tests.support.formats import dict_of, storage, tensor, torch_file


def test_a_stride_of_zero_makes_nothing_large(tmp_path: Path):
    huge = dict_of({"w": tensor(storage("0", 1), (1 << 20, 1 << 20), (0, 0))})
    file = tmp_path / "adapter.bin"
    file.write_bytes(torch_file(huge, {"0": bytes(4)}))
    with pytest.raises(FormatError, match="larger than the bytes that it views"):
        read_tensors(file)


def test_many_views_of_the_same_bytes_are_not_all_copied(tmp_path: Path):
    side = 1024
    names = {
        f"w{n}": tensor(storage("0", side * side), (side, side), (1, side)) for n in range(1000)
    }
    file = tmp_path / "adapter.bin"
    file.write_bytes(torch_file(dict_of(names), {"0": bytes(4 * side * side)}))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="too many times"):
            read_tensors(file)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_device_is_no_configuration(tmp_path: Path):
    (tmp_path / "adapter_config.json").symlink_to("/dev/zero")
    with pytest.raises(FormatError, match="not a regular file"):
        read_config(tmp_path / "adapter_config.json")


def test_a_link_to_a_configuration_is_followed(tmp_path: Path):
    """Caches of models are made of links."""
    (tmp_path / "blob").write_text('{"peft_type": "LORA"}')
    (tmp_path / "adapter_config.json").symlink_to("blob")
    assert read_config(tmp_path / "adapter_config.json").kind == "LORA"
