"""The tensors of one parameter as a merge sees them: in slices, in the dtype to compute in.

Computing is in float32, in float64 where an input is float64. (In bf16, as some references do, it
drifts by up to 1.6e-2.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from git_theta.errors import MergeError
from git_theta.ids import content_hash
from git_theta.merge.arithmetic import BLOCK, is_finite
from git_theta.merge.strategy import Slicing

# On a CPU a slice and its temporaries stay in the cache; a GPU wants enough work per launch.
CPU_SLICE = 1 << 18
GPU_SLICE = 1 << 25


@dataclass(frozen=True)
class Slice:
    """The elements of a parameter from flat index ``start``, in the dtype to compute in.

    Tensors are flat, or ``[rows, elements of a row]`` where they were sliced by rows, or of the
    parameter's shape where they were not sliced. They may share memory with the stored ones.
    """

    start: int
    models: list[Tensor]
    base: Tensor | None
    statistics: list[Tensor]

    @cached_property
    def deltas(self) -> list[Tensor]:
        """Contributors minus base."""
        assert self.base is not None, "checked before any slice is taken"
        return [model - self.base for model in self.models]

    @property
    def stop(self) -> int:
        """The flat index after the last element."""
        return self.start + self.models[0].numel()


@dataclass(frozen=True)
class Inputs:
    """One parameter to be merged: N contributors, a base or none, N statistics or none.

    Tensors are as they are stored, all of them on one device. ``contents`` are the contributors'
    content hashes (of the whole tensor's raw bytes, however it was chunked): they order the
    contributors and seed random masks. ``allow_nan`` lets NaN pass. ``device`` is where slices are
    computed, ``slice_elements`` how large they are at most (0: what suits the device); neither
    changes a bit of the result on a CPU.
    """

    name: str
    contributors: Sequence[Tensor]
    base: Tensor | None
    contents: tuple[str, ...]
    statistics: Sequence[Tensor] = ()
    allow_nan: bool = False
    device: torch.device | None = None
    slice_elements: int = 0

    @classmethod
    def of(
        cls,
        name: str,
        contributors: Sequence[Tensor],
        base: Tensor | None = None,
        statistics: Sequence[Tensor] = (),
    ) -> Inputs:
        """Inputs whose content hashes are taken from the tensors."""
        contents = tuple(content_of(tensor) for tensor in contributors)
        return cls(name, contributors, base, contents, statistics)

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape."""
        return tuple(self.contributors[0].shape)

    @property
    def count(self) -> int:
        """Its number of elements."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype to compute in."""
        stored = [*self.contributors, *([] if self.base is None else [self.base])]
        wide = any(tensor.dtype == torch.float64 for tensor in stored)
        return torch.float64 if wide else torch.float32

    def permuted(self, order: Sequence[int]) -> Inputs:
        """The same with the contributors in another order."""
        return replace(
            self,
            contributors=[self.contributors[place] for place in order],
            contents=tuple(self.contents[place] for place in order),
            statistics=[self.statistics[place] for place in order] if self.statistics else (),
        )

    def slices(self, slicing: Slicing = "element") -> Iterator[Slice]:
        """The parameter in pieces, in ascending order; none where it is empty.

        Raises ``MergeError`` for NaN, unless it is allowed.
        """
        if not self.count:
            return
        if slicing == "tensor":
            yield self._slice(0, list(self.contributors), self.base, list(self.statistics))
            return
        shape = (-1,) if slicing == "element" else rows(self.shape)
        models, statistics = (
            [tensor.reshape(shape) for tensor in group]
            for group in (self.contributors, self.statistics)
        )
        base = None if self.base is None else self.base.reshape(shape)
        width = math.prod(shape[1:])
        step = self._step(width)
        for first in range(0, len(models[0]), step):
            part = slice(first, first + step)
            yield self._slice(
                first * width,
                [tensor[part] for tensor in models],
                None if base is None else base[part],
                [tensor[part] for tensor in statistics],
            )

    def _step(self, width: int) -> int:
        """How much of the first axis a slice takes, where an index of it has ``width`` elements."""
        device = self.device or self.contributors[0].device
        limit = self.slice_elements or (CPU_SLICE if device.type == "cpu" else GPU_SLICE)
        return max(1, limit // BLOCK) * BLOCK if width == 1 else max(1, limit // width)

    def _slice(
        self, start: int, models: list[Tensor], base: Tensor | None, statistics: list[Tensor]
    ) -> Slice:
        return Slice(
            start,
            [self._load(tensor) for tensor in models],
            None if base is None else self._load(base),
            [self._load(tensor) for tensor in statistics],
        )

    def _load(self, stored: Tensor) -> Tensor:
        tensor = stored.to(self.device or stored.device).to(self.dtype)
        if not (self.allow_nan or is_finite(tensor)) and bool(tensor.isnan().any()):
            raise MergeError(
                f"{self.name} has NaN in an input of the merge",
                hint="take one side of it, or allow NaN",
            )
        return tensor


def rows(shape: Sequence[int]) -> tuple[int, int]:
    """Number of rows (output units; one where there is one axis) and elements of a row."""
    count = shape[0] if len(shape) > 1 else 1
    return count, math.prod(shape) // max(1, count)


def content_of(tensor: Tensor) -> str:
    """The content hash of a tensor's raw bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return content_hash(flat.view(torch.uint8).numpy().data)
