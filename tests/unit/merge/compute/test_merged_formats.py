"""Merged files of each format, read by the format's own library."""

from __future__ import annotations

import io

import gguf
import numpy as np
import torch

from tests.support import checkpoints
from tests.support.merges import Merger

BASE = checkpoints.tensors()
A, B = "layer.0.weight", "layer.1.weight"
NEW = np.ones((3, 5), np.float32)


def merged(merger: Merger, path: str, *files: bytes) -> bytes:
    stored = [merger.store(data, path) for data in files]
    found = merger.execute(merger.versions(*stored, path=path)).manifest
    return merger.file(found)


def test_gguf_with_a_tensor_that_each_side_added(merger, tmp_path):
    ours, theirs = BASE | {A: BASE[A] + 1, "other": NEW + 1}, BASE | {B: BASE[B] + 1, "new": NEW}
    data = merged(merger, "m.gguf", *map(checkpoints.gguf, (BASE, ours, theirs)))
    (tmp_path / "m.gguf").write_bytes(data)
    found = {it.name: it.data for it in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    expected = ours | {B: theirs[B], "new": NEW}
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_torch_files_from_before_1_6(merger):
    sides = (BASE, BASE | {A: BASE[A] + 1}, BASE | {B: BASE[B] + 1})
    data = merged(merger, "m.bin", *(checkpoints.torch_zip(it, legacy=True) for it in sides))
    found = torch.load(io.BytesIO(data), weights_only=True)
    expected = sides[1] | {B: sides[2][B]}
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), array)
