"""The tensors that strategies work on, decoded ahead of the computation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from git_theta.checkpoint.reader import BUDGET, Reader
from git_theta.core.parallel import ahead
from git_theta.core.progress import Progress
from git_theta.manifest import TensorEntry
from git_theta.merge.compute.conversion import check_alike, shows_all, tensor_of, torch_dtype
from git_theta.merge.compute.tensor import cast
from git_theta.merge.kernels.device import Devices, slice_elements, threads_on
from git_theta.merge.kernels.slices import Inputs, content_of
from git_theta.merge.planning.actions import Merge
from git_theta.merge.planning.row_map import RowMap
from git_theta.merge.planning.tensors import identity_value


@dataclass(frozen=True)
class Loader:
    """Decodes the inputs of parameters that are merged.

    With ``keeps``, those that a prepass loads stay in memory until they are taken for the merge:
    TIES otherwise decodes each three times, which is most of its time. ``others`` are further
    devices, which get slices too.
    """

    reader: Reader
    device: torch.device
    threads: int
    allow_nan: bool = False
    keeps: bool = False
    others: Devices = ()
    _kept: dict[str, Inputs] = field(default_factory=dict)

    def load(self, action: Merge) -> Inputs:
        """Return the tensors of one parameter, as they are stored, in the CPU's memory."""
        found = self._kept.get(action.name) or self._load(action)
        if self.keeps:
            self._kept[action.name] = found
        return found

    def take(self, action: Merge) -> Inputs:
        """Return the same tensors, and keep them no longer."""
        return self._kept.pop(action.name, None) or self._load(action)

    def _load(self, action: Merge) -> Inputs:
        tensors = self._tensors(action.inputs)
        stored = [_shared(tensor, action, place) for place, tensor in enumerate(tensors)]
        contributors = [_as_result(t, action) for t in stored[: len(action.entries)]]
        base = stored[-1] if action.base else self._neutral(action, contributors[0])
        check_alike(action.name, contributors if base is None else [*contributors, base])
        return Inputs(
            name=action.name,
            contributors=contributors,
            base=base,
            contents=tuple(map(_content, action.entries, tensors)),
            statistics=[
                _shared(self.tensor(entry), action, place)
                for place, entry in enumerate(action.statistics)
            ],
            allow_nan=self.allow_nan,
            device=self._device(contributors),
            out_dtype=torch_dtype(action.out_dtype) if action.out_dtype else None,
            slice_elements=slice_elements(self.device, len(contributors)),
            threads=threads_on(self.device, self.threads),
        )

    def rest(self, action: Merge, merged: Tensor) -> Tensor:
        """Return the ``merged`` rows, and after them those that one contributor alone has."""
        if action.shared is None:
            return merged
        if isinstance(action.shared, RowMap):
            return self._rest_by_token(action, action.shared, merged)
        first, last = action.shared.rows, action.entry.shape[0]
        others = _as_result(self.tensor(action.entries[action.shared.rest]), action)
        own = cast(action.name, others[first:last], merged.dtype)
        return torch.cat([merged.to(others.device), own])

    def _rest_by_token(self, action: Merge, rows: RowMap, merged: Tensor) -> Tensor:
        # A row that nobody has is of no token.
        result = merged.new_zeros((rows.count, *merged.shape[1:]))
        result[torch.from_numpy(rows.merged)] = merged
        for side, places, sources in rows.rest():
            if len(places):
                own = _as_result(self.tensor(action.entries[side]), action)
                taken = cast(action.name, own[torch.from_numpy(sources)], merged.dtype)
                result[torch.from_numpy(places)] = taken.to(result.device)
        return result

    def tensor(self, entry: TensorEntry) -> Tensor:
        """Return a tensor as it is stored, in the CPU's memory."""
        return self._tensors([entry])[0]

    def _tensors(self, entries: Sequence[TensorEntry]) -> list[Tensor]:
        return [*map(tensor_of, entries, self.reader.tensors(entries))]

    def _neutral(self, action: Merge, like: Tensor) -> Tensor | None:
        neutral = identity_value(action.name)
        if neutral is None or not action.method.strategy.needs_base(action.method.values):
            return None
        return torch.full_like(like, neutral)

    def _device(self, tensors: Sequence[Tensor]) -> torch.device:
        # Apple's GPUs have no float64.
        if self.device.type == "mps" and any(t.dtype == torch.float64 for t in tensors):
            return torch.device("cpu")
        return self.device


LoadedBy = tuple[Merge, Loader]


@dataclass(frozen=True)
class LazyModel:
    """The parameters of one method, as a prepass sees them; ``unchanged`` elements are not read.

    Each comes with the loader of the file that it is in, and is decoded anew in every pass unless
    its loader keeps it.
    """

    parts: Sequence[LoadedBy]
    progress: Progress
    unchanged: int = 0

    @cached_property
    def names(self) -> Sequence[str]:
        """Names of the parameters."""
        return [action.name for action, _ in self.parts]

    @cached_property
    def count(self) -> int:
        """Number of elements of all of them."""
        return sum(_count(action.entry) for action, _ in self.parts)

    @cached_property
    def wide(self) -> bool:
        """Return whether any tensor is float64."""
        return any(entry.dtype == "F64" for action, _ in self.parts for entry in action.inputs)

    @property
    def threads(self) -> int:
        """Number of slices to work on at a time."""
        _, loader = self.parts[0]
        return threads_on(loader.device, loader.threads, loader.others)

    def stream(self, names: Iterable[str]) -> Iterator[Inputs]:
        """Yield the inputs of these parameters, in this order."""
        by_name = {action.name: (action, loader) for action, loader in self.parts}
        chosen = [by_name[name] for name in names]
        self.progress.start("scanning", sum(action.weight for action, _ in chosen))
        for inputs in ahead(_load, chosen, _weight, BUDGET, self.threads):
            weight = _weight(by_name[inputs.name])
            yield inputs
            del inputs  # before the next one is loaded
            self.progress.advance(weight)
        self.progress.finish()


def _load(part: LoadedBy) -> Inputs:
    action, loader = part
    return loader.load(action)


def _weight(part: LoadedBy) -> int:
    return part[0].weight


def _shared(tensor: Tensor, action: Merge, place: int) -> Tensor:
    """Return the rows of an input that are merged."""
    if action.shared is None:
        return tensor
    if isinstance(action.shared, RowMap):
        return tensor[torch.from_numpy(action.shared.sources(place))]
    return tensor[: action.shared.rows]


def _as_result(tensor: Tensor, action: Merge) -> Tensor:
    """Return a contributor's tensor, in the widest dtype where the contributors' differ."""
    wanted = torch_dtype(action.common_dtype)
    return tensor if tensor.dtype == wanted else tensor.to(wanted)


def _content(entry: TensorEntry, tensor: Tensor) -> str:
    """Return the hash of a contributor's tensor, however it is cut into chunks."""
    if len(entry.chunks) == 1 and entry.strides is None:
        return entry.chunks[0].hash
    return content_of(tensor)


def _count(entry: TensorEntry) -> int:
    if not shows_all(entry):
        return entry.length
    total = 1
    for length in entry.shape:
        total *= length
    return total
