"""Thresholds of magnitudes, and the elements that they keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.reductions import above, below

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, order=True)
class MagnitudeThreshold:
    """The largest magnitudes: those above ``magnitude``, and of its equals those up to ``last``.

    ``last`` is a flat index in the parameter that it is for; -1 keeps none of the equals.
    """

    magnitude: float
    last: int

    def keeps(self, magnitudes: Tensor, start: int) -> Tensor:
        """Return 1.0 where an element is kept, else 0.0; ``start`` is the first's flat index."""
        if self == NONE:
            return torch.zeros_like(magnitudes)
        if not is_float32(self.magnitude):
            # It is a float64 tensor's; comparing in float32 would round it.
            magnitudes = magnitudes.double()
        ties = self.last + 1 - start
        if ties >= magnitudes.numel():
            return 1 - below(magnitudes, self.magnitude)
        mask = above(magnitudes, self.magnitude)
        if ties > 0:
            mask[:ties] = 1 - below(magnitudes[:ties], self.magnitude)
        return mask

    def trim(self, values: Tensor, start: int) -> Tensor:
        """Return ``values`` times 1 where their magnitude is kept, times 0 elsewhere."""
        return values * self.keeps(values.abs(), start).to(values.dtype)


ALL = MagnitudeThreshold(-1.0, -1)
NONE = MagnitudeThreshold(math.inf, -1)


def is_float32(number: float) -> bool:
    """Return whether float32 has this number."""
    return float(np.float32(number)) == number
