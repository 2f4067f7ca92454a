"""Agreement of tensors within rounding, for merges that are not the same bits everywhere."""

from __future__ import annotations

import torch

from git_theta.checkpoint.reader import Reader
from git_theta.manifest import TensorEntry
from git_theta.merge.compute.conversion import tensor_of

TOLERANCE = 1e-9
"""Share of a tensor's largest magnitude by which elements may differ.

Linear algebra in float64 differs by about 1e-12 from one number of threads to another; Gram
matrices whose condition is bad make more of that.
"""


def agrees(reader: Reader, one: TensorEntry, other: TensorEntry) -> bool:
    """Return whether two tensors differ by no more than ``TOLERANCE``, and the last stored digit.

    The last digit counts where the dtype is narrower than float64: numbers on either side of the
    middle between two others are rounded apart.
    """
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    first, second = (tensor_of(e, reader.tensors([e])[0]) for e in (one, other))
    if not first.is_floating_point():
        return torch.equal(first, second)
    digit = 0.0 if first.dtype == torch.float64 else torch.finfo(first.dtype).eps
    first, second = first.double(), second.double()
    allowed = TOLERANCE * second.abs().max() + digit * second.abs()
    return bool(((first - second).abs() <= allowed).all())
