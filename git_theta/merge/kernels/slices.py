"""The tensors of one parameter as a merge sees them: in slices, in the dtype to compute in.

Computing is in float32, in float64 where an input is float64. (In bf16, as some references do, it
drifts by up to 1.6e-2.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import cycle
from typing import TYPE_CHECKING, Literal, TypeVar

from git_theta.core.hashes import content_hash
from git_theta.core.parallel import in_order
from git_theta.errors import MergeError
from git_theta.merge.kernels.device import Devices, lane, sent, usual_slice
from git_theta.merge.kernels.lazy_torch import torch
from git_theta.merge.kernels.reductions import BLOCK, are_compiled, difference, is_finite

if TYPE_CHECKING:
    from torch import Tensor

R = TypeVar("R")

Slicing = Literal["element", "row", "tensor"]
"""Places where tensors may be cut: anywhere, between rows (output units), or nowhere."""


@dataclass(frozen=True)
class Slice:
    """The elements of parameter ``name`` from flat index ``start``, in the dtype to compute in.

    Tensors are flat, or ``[rows, elements of a row]`` where they were sliced by rows, or of the
    parameter's shape where they were not sliced. They may share memory with the ``stored`` ones,
    the last of which is the base if there ``has_base``; ``widened`` converts and checks one.
    """

    name: str
    start: int
    stored: list[Tensor]
    has_base: bool
    statistics: list[Tensor]
    widened: Callable[[Tensor], Tensor]

    @cached_property
    def models(self) -> list[Tensor]:
        """The contributors."""
        return [self.widened(tensor) for tensor in self.stored[: -1 if self.has_base else None]]

    @cached_property
    def base(self) -> Tensor | None:
        """The base, if there is one."""
        return self.widened(self.stored[-1]) if self.has_base else None

    @cached_property
    def deltas(self) -> list[Tensor]:
        """Contributors minus base."""
        assert self.has_base, "checked before any slice is taken"
        if found := self._differences():
            return found
        assert self.base is not None
        return [model - self.base for model in self.models]

    def _differences(self) -> list[Tensor] | None:
        """Return the differences of bf16 tensors, which are not widened for them.

        ``None`` where there may be NaN: where they are finite, so are the tensors.
        """
        *models, base = self.stored
        if not are_compiled(self.stored, torch.bfloat16):
            return None
        found = [difference(model, base) for model in models]
        return found if all(map(is_finite, found)) else None

    def check(self) -> None:
        """Raise ``MergeError`` for NaN in what nobody looked at."""
        if "deltas" not in self.__dict__:
            _ = self.models, self.base

    @property
    def stop(self) -> int:
        """The flat index after the last element."""
        return self.start + self.stored[0].numel()


@dataclass(frozen=True)
class Inputs:
    """One parameter to be merged: N contributors, a base or none, N statistics or none.

    Tensors are as they are stored, all of them on one device. ``contents`` are the contributors'
    content hashes (of the whole tensor's raw bytes, however it was chunked): they order the
    contributors and seed random masks. ``allow_nan`` lets NaN pass. ``device`` is where slices are
    computed, ``out_dtype`` what the result is rounded to (by default the contributors' own),
    ``slice_elements`` how large they are at most (0: what suits the device), ``threads``
    how many are computed at a time: on a CPU none of them changes a bit of the result. Torch's own
    threads wait for each other after every operation; with ``threads``, give it one.
    """

    name: str
    contributors: Sequence[Tensor]
    base: Tensor | None
    contents: tuple[str, ...]
    statistics: Sequence[Tensor] = ()
    allow_nan: bool = False
    device: torch.device | None = None
    out_dtype: torch.dtype | None = None
    slice_elements: int = 0
    threads: int = 1
    others: Devices = ()

    @classmethod
    def of(
        cls,
        name: str,
        contributors: Sequence[Tensor],
        base: Tensor | None = None,
        statistics: Sequence[Tensor] = (),
    ) -> Inputs:
        """Return inputs, with the content hashes computed from the tensors."""
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
        """Return a copy with the contributors in another order."""
        return replace(
            self,
            contributors=[self.contributors[place] for place in order],
            contents=tuple(self.contents[place] for place in order),
            statistics=[self.statistics[place] for place in order] if self.statistics else (),
        )

    @property
    def workers(self) -> int:
        """Number of threads that have a slice to work on: one if there is one slice."""
        return self.threads if self.count > self._slice else 1

    @property
    def _slice(self) -> int:
        device = self.device or self.contributors[0].device
        return self.slice_elements or usual_slice(device, self.threads)

    def pieces(self, slicing: Slicing = "element") -> Iterator[Piece]:
        """Yield the parameter in pieces to be loaded, in ascending order; none if it is empty."""
        if not self.count:
            return
        if slicing == "tensor":
            yield Piece(0, self.device, partial(self._load, None, self.device))
            return
        shape = (self.count,) if slicing == "element" else rows(self.shape)
        width = math.prod(shape[1:])
        views, step = self._reshaped(shape), self._step(width)
        devices = cycle((self.device, *self.others))
        for first, device in zip(range(0, shape[0], step), devices, strict=False):
            load = partial(views._load, slice(first, first + step), device)
            yield Piece(first * width, device, load)

    def _step(self, width: int) -> int:
        """Return how many rows of ``width`` elements a slice takes."""
        if width == 1:
            return max(1, self._slice // BLOCK) * BLOCK
        return max(1, self._slice // width)

    def _reshaped(self, shape: Sequence[int]) -> Inputs:
        return replace(
            self,
            contributors=[tensor.reshape(shape) for tensor in self.contributors],
            base=None if self.base is None else self.base.reshape(shape),
            statistics=[tensor.reshape(shape) for tensor in self.statistics],
        )

    def _load(self, part: slice | None, device: torch.device | None) -> Slice:
        """Load ``part`` of the first axis, or all.

        What the slice then converts raises ``MergeError`` for NaN, unless that is allowed.
        """

        def load(stored: Tensor) -> Tensor:
            return sent(stored if part is None else stored[part], device)

        def widened(tensor: Tensor) -> Tensor:
            return self._checked(tensor.to(self.dtype))

        bases = [] if self.base is None else [self.base]
        return Slice(
            self.name,
            0 if part is None else int(part.start) * math.prod(self.shape[1:]),
            [load(tensor) for tensor in (*self.contributors, *bases)],
            self.base is not None,
            [widened(load(tensor)) for tensor in self.statistics],
            widened,
        )

    def _checked(self, tensor: Tensor) -> Tensor:
        if not (self.allow_nan or is_finite(tensor)) and bool(tensor.isnan().any()):
            raise MergeError(
                f"{self.name} has NaN in an input of the merge",
                hint="take one side of it by a rule, or merge it with --allow-nan",
            )
        return tensor


@dataclass(frozen=True)
class Piece:
    """A slice that is yet to be loaded, in the thread that works on it.

    ``start`` is the flat index of its first element.
    """

    start: int
    device: torch.device | None
    load: Callable[[], Slice]


def each(pieces: Iterable[Piece], work: Callable[[Slice], R], threads: int) -> Iterator[R]:
    """Yield ``work(slice)`` for each piece, in their order."""

    def run(piece: Piece) -> R:
        with lane(piece.device):
            loaded = piece.load()
            found = work(loaded)
            loaded.check()
            return found

    return map(run, pieces) if threads == 1 else in_order(run, pieces, threads)


def rows(shape: Sequence[int]) -> tuple[int, int]:
    """Return the number of rows (output units; 1 for a single axis) and of elements in a row."""
    count = shape[0] if len(shape) > 1 else 1
    return count, math.prod(shape) // max(1, count)


def content_of(tensor: Tensor) -> str:
    """Return the content hash of a tensor's raw bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return content_hash(flat.view(torch.uint8).numpy().data)
