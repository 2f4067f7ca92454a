"""A storage's bytes as a tensor, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from git_theta.core.dtypes import DTYPES
from git_theta.errors import MergeError
from git_theta.manifest import Chunk, TensorEntry
from git_theta.merge.compute.conversion import bytes_of, check_alike, shows_all, tensor_of


def entry(dtype: str, shape, length: int, offset: int = 0, strides=None) -> TensorEntry:
    chunks = (Chunk(length, "0" * 64, ()),) if length else ()
    return TensorEntry("w", dtype, tuple(shape), 0, chunks, offset, strides)


def raw(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, length, np.uint8)


@pytest.mark.parametrize("name", [name for name, d in DTYPES.items() if d.bits >= 8])
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 4), (6, 1)])
def test_bytes_come_back(name, shape):
    length = DTYPES[name].bits // 8 * int(np.prod(shape))
    described, data = entry(name, shape, length), raw(length)
    tensor = tensor_of(described, data)
    assert tuple(tensor.shape) == shape
    assert bytes_of(described, tensor).tobytes() == data.tobytes()


def test_the_bits_of_bf16_are_right():
    tensor = tensor_of(entry("BF16", (2,), 4), np.array([0x80, 0x3F, 0x40, 0xC0], np.uint8))
    assert tensor.tolist() == [1.0, -3.0]


@pytest.mark.parametrize(("shape", "strides"), [((3, 2), (1, 3)), ((2, 3, 1), (1, 2, 7))])
def test_a_turned_tensor_shows_its_storage(shape, strides):
    described, data = entry("F32", shape, 24, 0, strides), raw(24)
    tensor = tensor_of(described, data)
    flat = torch.from_numpy(data).view(torch.float32)
    assert torch.equal(tensor, flat.as_strided(shape, strides))
    assert bytes_of(described, tensor * 2).view(np.float32).tolist() == (flat * 2).tolist()


@pytest.mark.parametrize(
    ("shape", "offset", "strides"),
    [((2,), 0, (1,)), ((2,), 4, (1,)), ((3, 6), 0, (0, 1)), ((2, 3), 0, (2, 1))],
)
def test_a_part_of_a_storage_is_given_whole(shape, offset, strides):
    described, data = entry("F32", shape, 24, offset, strides), raw(24)
    assert not shows_all(described)
    tensor = tensor_of(described, data)
    assert tuple(tensor.shape) == (6,)
    assert bytes_of(described, tensor).tobytes() == data.tobytes()


def test_a_dtype_that_torch_lacks():
    with pytest.raises(MergeError, match="w has dtype F6_E2M3"):
        tensor_of(entry("F6_E2M3", (4,), 3), raw(3))


def test_storages_of_different_sizes():
    check_alike("w", [torch.zeros(2), torch.ones(2)])
    with pytest.raises(MergeError, match=r"w is part of storages of different sizes: \[2\] and"):
        check_alike("w", [torch.zeros(2), torch.zeros(3)])
