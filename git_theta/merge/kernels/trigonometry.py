"""Sine and arc cosine of float64 tensors with the same bits on every machine.

The ones of the C library and of torch differ in the last place between CPUs with and without fused
multiply-add. These use the basic operations only; their error is below 4 units in the last place
(1e-15), which the rounding of the merged tensor to float32 hides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from git_theta.merge.kernels.lazy_torch import torch

if TYPE_CHECKING:
    from torch import Tensor


# Taylor series, in x², highest power first: sine to x^23 (error 1e-19 at pi/2), arc tangent to
# x^27 (error 1e-22 at 0.2).
_SINE = [(-1) ** n / math.factorial(2 * n + 1) for n in range(11, -1, -1)]
_ARCTAN = [(-1) ** n / (2 * n + 1) for n in range(13, -1, -1)]


def sin(angle: Tensor) -> Tensor:
    """Return the sine of angles in [0, pi]."""
    angle = torch.minimum(angle, math.pi - angle)
    return angle * _series(_SINE, angle * angle)


def cos(angle: Tensor) -> Tensor:
    """Return the cosine of angles in [0, pi]."""
    half = sin(angle / 2)
    return 1 - 2 * half * half


def acos(cosine: Tensor) -> Tensor:
    """Return the angle in [0, pi] of a cosine, which is first clamped to [-1, 1]."""
    cosine = cosine.clamp(-1, 1)
    # tan(angle / 4), then the tangents of an eighth and of a sixteenth: at most 0.2.
    tangent = ((1 - cosine) / 2).sqrt() / (1 + ((1 + cosine) / 2).sqrt())
    for _ in range(2):
        tangent = tangent / (1 + (1 + tangent * tangent).sqrt())
    return 16 * tangent * _series(_ARCTAN, tangent * tangent)


def _series(coefficients: list[float], x: Tensor) -> Tensor:
    total = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total
