"""Small tasks that an encoder is fine-tuned on; each brings its data, its head and its loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from benchmarks.sentences import ENTAILMENT, OPINIONS, PARAPHRASES

Encoder = Callable[[list[str]], Tensor]
"""Gives sentences' vectors (sentences, HIDDEN) of length one."""

HIDDEN = 384
_TEMPERATURE = 0.2


class Task(Protocol):
    """Something to learn from ``size`` examples; ``head`` is trained too, and then thrown away."""

    size: int
    head: nn.Module

    def loss(self, encode: Encoder, chosen: Sequence[int]) -> Tensor:
        """The loss on the examples with these numbers."""
        ...


class Paraphrases:
    """Each first half must find its second half among those of the batch."""

    def __init__(self) -> None:
        self.size = len(PARAPHRASES)
        self.head: nn.Module = nn.Identity()

    def loss(self, encode: Encoder, chosen: Sequence[int]) -> Tensor:
        """Contrastive, with the other examples as wrong answers."""
        first, second = (encode([PARAPHRASES[i][side] for i in chosen]) for side in (0, 1))
        scores = first @ second.T / _TEMPERATURE
        return nn.functional.cross_entropy(scores, torch.arange(len(chosen)))


class Entailment:
    """Whether the premise implies the hypothesis."""

    def __init__(self) -> None:
        self.size = len(ENTAILMENT)
        self.head: nn.Module = nn.Linear(3 * HIDDEN, 2)

    def loss(self, encode: Encoder, chosen: Sequence[int]) -> Tensor:
        """Cross entropy over both vectors and their distance."""
        premise = encode([ENTAILMENT[i][0] for i in chosen])
        hypothesis = encode([ENTAILMENT[i][1] for i in chosen])
        both = torch.cat([premise, hypothesis, (premise - hypothesis).abs()], dim=1)
        labels = torch.tensor([ENTAILMENT[i][2] for i in chosen])
        return nn.functional.cross_entropy(self.head(both), labels)


class Opinions:
    """Whether a sentence praises."""

    def __init__(self) -> None:
        self.size = len(OPINIONS)
        self.head: nn.Module = nn.Linear(HIDDEN, 2)

    def loss(self, encode: Encoder, chosen: Sequence[int]) -> Tensor:
        """Cross entropy."""
        labels = torch.tensor([OPINIONS[i][1] for i in chosen])
        return nn.functional.cross_entropy(
            self.head(encode([OPINIONS[i][0] for i in chosen])), labels
        )
