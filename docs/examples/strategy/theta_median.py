from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from git_theta.plugins import Range, strategy


@strategy(slicing="element")
def median(
    base: Tensor,
    deltas: Sequence[Tensor],
    *,
    strength: Annotated[float, Range(0, 2), "factor of the median task vector"] = 1.0,
) -> Tensor:
    """The base plus the element-wise median of the task vectors.

    θ0 + strength median(τi); of an even number of contributors the lower of the middle two.
    """
    return base + strength * torch.stack(list(deltas)).median(dim=0).values
