"""Numbers of two tensors compared by a sample of their bytes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from git_theta.core.arrays import Bytes

_SAMPLE = 1 << 16
"""Bytes that are compared."""

# Of a tensor's length; fine-tuning moves a tensor by a hundredth of it, another one is 1.4 away.
_NEAR = 0.5
_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


def are_near(dtype: str, one: Bytes, other: Bytes) -> bool:
    """Return whether the first numbers of two tensors are nearly the same.

    Those of floats lie within half of their length of each other; of other dtypes half are equal.
    """
    size = min(_SAMPLE, one.size, other.size)
    first, second = _numbers(dtype, one[:size]), _numbers(dtype, other[:size])
    if first is None or second is None:
        return bool(np.mean(one[:size] == other[:size]) >= _NEAR)
    with np.errstate(all="ignore"):
        distance, length = np.linalg.norm(first - second), np.linalg.norm(first)
    return bool(np.isfinite(length) and distance <= _NEAR * length)


def _numbers(dtype: str, data: Bytes) -> NDArray[np.float64] | None:
    if dtype == "BF16":
        return (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return data.view(_DTYPES[dtype]).astype(np.float64) if dtype in _DTYPES else None
