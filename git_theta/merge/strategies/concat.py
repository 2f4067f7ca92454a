"""Soft prompts joined to one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.rules.strategy import strategy

if TYPE_CHECKING:
    from torch import Tensor


@strategy(paper="arXiv:2205.12647", ordered=True)
def concat(
    prompts: Sequence[Tensor],
    *,
    order: Annotated[
        Sequence[float], "where each prompt stands: lower numbers first, equal ones as merged"
    ] = (0.0,),
) -> Tensor:
    """Join the contributors' soft prompts along the token axis.

    For ``prompt_embeddings`` of prompt and prefix tuning; the adapter's configuration gets the sum
    of the tokens. The ancestor's prompt counts as empty.
    """
    places = sorted(range(len(prompts)), key=lambda place: order[place])
    return torch.cat([prompts[place] for place in places], dim=1)
