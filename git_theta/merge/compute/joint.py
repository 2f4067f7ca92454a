"""Merge units, which are LoRA updates and prompts, from their stored tensors."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from git_theta.errors import MergeError, ThetaError
from git_theta.manifest import TensorEntry
from git_theta.merge.compute.tensor import merge_by
from git_theta.merge.kernels.lora import LoraFactors
from git_theta.merge.planning.actions import Unit, UnitMember
from git_theta.merge.planning.lora import LoraUnit, Pair
from git_theta.merge.planning.soft_prompts import PromptUnit
from git_theta.merge.rules.strategy import Target

Load = Callable[[TensorEntry], Tensor]

# Smaller losses are the rounding of the factors.
_NOTED = 1e-3


class UnitMerger:
    """Computes each unit once, whichever of its parameters is asked for first.

    ``load`` returns a stored tensor.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[int, Tensor]] = {}
        self._lost: list[tuple[LoraUnit, float]] = []

    def member(self, action: UnitMember) -> Tensor:
        """Return a parameter of a unit; each may be asked for once.

        Raises ``MergeError``, naming the unit, for what its strategy cannot merge.
        """
        with self._lock:
            key = action.unit.name
            if key not in self._waiting:
                self._waiting[key] = dict(enumerate(self._merge(action.unit)))
            tensor = self._waiting[key].pop(action.place)
            if not self._waiting[key]:
                del self._waiting[key]
            return tensor

    @property
    def notes(self) -> tuple[str, ...]:
        """Return a note of the largest share of an update that a truncation dropped, if any."""
        unit, lost = max(self._lost, key=lambda pair: pair[1], default=(None, 0.0))
        if unit is None or lost < _NOTED:
            return ()
        rank = unit.results[0].shape[0]
        return (
            f"{unit.method.strategy.name} at rank {rank} drops up to {100 * lost:.2g} % of an "
            f"update ({unit.name}); use -p rank={2 * rank} or --strategy cat",
        )

    def _merge(self, unit: Unit) -> list[Tensor]:
        try:
            if isinstance(unit, PromptUnit):
                return [_concatenate_prompts(unit, self._load)]
            assert isinstance(unit, LoraUnit), "there are no others"
            merged = _merge_factors(unit, self._load)
        except ThetaError as error:
            error.message = f"{unit.name}: {error.message}"
            if isinstance(error, MergeError):
                error.of(unit.name)
            raise
        self._lost.append((unit, merged.lost))
        return [merged.down, merged.up, *_alphas(unit, merged, self._load)]


def _merge_factors(unit: LoraUnit, load: Load) -> LoraFactors:
    rank = unit.results[0].shape[0]
    factors = [factors_of(pair, load) for pair in unit.pairs]
    # With the rank of ours, the alpha of ours stays.
    stays = unit.pairs[0].alpha and rank == unit.pairs[0].rank
    available = {
        "factors": factors,
        "base": factors_of(unit.base, load) if unit.base else None,
        "target": Target(rank, factors[0].scale if stays else unit.scale),
        "merge": merge_by(unit.values, unit.name) if "rule" in unit.values else None,
    }
    merged: LoraFactors = unit.method.strategy(available, unit.values)
    if not bool(merged.down.isfinite().all() and merged.up.isfinite().all()):
        raise MergeError("the merged factors have NaN or infinity")
    return merged


def _alphas(unit: LoraUnit, merged: LoraFactors, load: Load) -> list[Tensor]:
    """Return the alpha of the merged update, rank times scale, where it has one."""
    like = next((pair.alpha for pair in unit.pairs if pair.alpha), None)
    if like is None:
        return []
    alpha = torch.full_like(load(like), merged.rank * merged.scale)
    if not torch.allclose(alpha.double(), torch.tensor(merged.rank * merged.scale).double()):
        raise MergeError(f"its alpha, {merged.rank * merged.scale:g}, does not fit {like.dtype}")
    return [alpha]


def factors_of(pair: Pair, load: Load) -> LoraFactors:
    """Return a side's LoRA update, its factors loaded; its scale from the alpha beside them."""
    scale = pair.scale
    if pair.alpha:
        scale = load(pair.alpha).double().item() / pair.rank
        if not (scale and math.isfinite(scale)):
            raise MergeError(f"it is scaled by {scale:g}")
    return LoraFactors(load(pair.down), load(pair.up), scale)


def _concatenate_prompts(unit: PromptUnit, load: Load) -> Tensor:
    stored = [load(entry) for entry in unit.inputs]
    prompts = [tensor.reshape(unit.parts, -1, tensor.shape[1]) for tensor in stored]
    joined = unit.method.strategy({"prompts": prompts}, unit.values)
    return torch.reshape(joined, unit.results[0].shape)
