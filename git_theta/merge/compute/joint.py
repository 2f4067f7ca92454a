"""Units computed: LoRA updates and prompts, from their tensors as they are stored."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from git_theta.errors import MergeError, ThetaError
from git_theta.manifest import TensorEntry
from git_theta.merge.kernels.lora import Factors
from git_theta.merge.planning.actions import Part, Unit
from git_theta.merge.planning.lora import LoraUnit, Pair
from git_theta.merge.planning.soft_prompts import PromptUnit
from git_theta.merge.rules.strategy import Target

Load = Callable[[TensorEntry], Tensor]

# What is less is the rounding of the factors.
_NOTED = 1e-3


class Joiner:
    """Computes each unit once, whichever of its parameters is asked for first.

    ``load`` gives the tensors that are stored.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._waiting: dict[int, dict[int, Tensor]] = {}
        self._lost: dict[str, float] = {}

    def part(self, step: Part) -> Tensor:
        """A parameter of a unit, each of which may be asked for once.

        Raises ``MergeError``, naming the unit, for what its strategy cannot merge.
        """
        with self._lock:
            key = id(step.unit)
            if key not in self._waiting:
                self._waiting[key] = dict(enumerate(self._join(step.unit)))
            tensor = self._waiting[key].pop(step.place)
            if not self._waiting[key]:
                del self._waiting[key]
            return tensor

    @property
    def notes(self) -> tuple[str, ...]:
        """The largest share that a truncation lost."""
        name, lost = max(self._lost.items(), key=lambda item: item[1], default=("", 0.0))
        if lost < _NOTED:
            return ()
        return (f"the rank is too low for up to {100 * lost:.2g} % of a merged update ({name})",)

    def _join(self, unit: Unit) -> list[Tensor]:
        try:
            if isinstance(unit, PromptUnit):
                return [_join_prompts(unit, self._load)]
            assert isinstance(unit, LoraUnit), "there are no others"
            merged = _join_factors(unit, self._load)
        except ThetaError as error:
            error.message = f"{unit.name}: {error.message}"
            raise
        self._lost[unit.name] = merged.lost
        return [merged.down, merged.up]


def _join_factors(unit: LoraUnit, load: Load) -> Factors:
    rank = unit.results[0].shape[0]
    available = {
        "factors": [factors_of(pair, load) for pair in unit.pairs],
        "base": factors_of(unit.base, load) if unit.base else None,
        "target": Target(rank, unit.scale),
    }
    merged: Factors = unit.method.strategy(available, unit.values)
    if not bool(merged.down.isfinite().all() and merged.up.isfinite().all()):
        raise MergeError("the merged factors have NaN or infinity")
    return merged


def factors_of(pair: Pair, load: Load) -> Factors:
    """A side's LoRA update."""
    return Factors(load(pair.down), load(pair.up), pair.scale)


def _join_prompts(unit: PromptUnit, load: Load) -> Tensor:
    stored = [load(entry) for entry in unit.inputs]
    prompts = [tensor.reshape(unit.parts, -1, tensor.shape[1]) for tensor in stored]
    joined = unit.method.strategy({"prompts": prompts}, unit.values)
    return torch.reshape(joined, unit.results[0].shape)
