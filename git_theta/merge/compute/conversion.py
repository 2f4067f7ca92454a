"""Conversion of a parameter's bytes to a torch tensor, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from git_theta.core.arrays import Bytes
from git_theta.core.dtypes import FRAMEWORK_NAMES, dtype
from git_theta.errors import MergeError
from git_theta.manifest import TensorEntry

# Dtypes that this torch lacks are left out.
_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, theirs)
    for name, theirs in FRAMEWORK_NAMES.items()
    if hasattr(torch, theirs)
}


def torch_dtype(name: str) -> torch.dtype | None:
    """Return torch's dtype for the one called ``name``, if this torch has it."""
    return _DTYPES.get(name)


def tensor_of(entry: TensorEntry, data: Bytes) -> Tensor:
    """Return the tensor that ``entry`` describes, a view of its storage's bytes ``data``.

    A storage of which the tensor shows only a part, or a part twice, is returned whole and flat:
    other names may view the rest. Raises ``MergeError`` for a dtype that torch does not have.
    """
    if entry.dtype not in _DTYPES:
        raise MergeError(
            f"{entry.name} has dtype {entry.dtype}, which this torch does not have"
        ).of(entry.name)
    if not data.size:
        return torch.empty(entry.shape, dtype=_DTYPES[entry.dtype])
    flat = torch.from_numpy(data).view(_DTYPES[entry.dtype])
    if not shows_all(entry):
        return flat
    if entry.strides is None:
        return flat.view(entry.shape)
    return flat.as_strided(entry.shape, entry.strides, entry.offset)


def bytes_of(entry: TensorEntry, tensor: Tensor) -> Bytes:
    """Return the bytes of the storage that ``entry`` describes, with the elements of ``tensor``.

    The tensor has the shape that ``tensor_of`` returns.
    """
    if entry.strides is not None and shows_all(entry):
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
        flat.as_strided(entry.shape, entry.strides, entry.offset).copy_(tensor)
        tensor = flat
    raw: Bytes = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return raw


def shows_all(entry: TensorEntry) -> bool:
    """Return whether the tensor has each element of its storage exactly once."""
    if entry.strides is None:
        return not entry.offset
    held = entry.length * 8 // dtype(entry.dtype).bits
    return entry.offset == 0 and math.prod(entry.shape) == held and _is_dense(entry)


def _is_dense(entry: TensorEntry) -> bool:
    """Return whether the strides are those of a contiguous tensor with permuted axes."""
    assert entry.strides is not None
    axes = sorted(
        (stride, count)
        for stride, count in zip(entry.strides, entry.shape, strict=True)
        if count != 1
    )
    expected = 1
    for stride, count in axes:
        if stride != expected:
            return False
        expected *= count
    return True


def check_alike(name: str, tensors: Sequence[Tensor]) -> None:
    """Raise ``MergeError`` for storages of different lengths, of which only a part is shown."""
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        listed = " and ".join(str(list(shape)) for shape in sorted(shapes))
        raise MergeError(f"{name} is part of storages of different sizes: {listed}").of(name)
